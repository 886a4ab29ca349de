"""Rules of policy routing (ip-rule(8)): which table a packet's route is looked up in.

Knows: fib_rule_hdr and FRA_* (linux/fib_rules.h).  Pure, but for ``read``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from netlink import nlmsg
from netlink.inet import AF
from netlink.nlmsg import Message, parse_attrs, to_int, to_text

if TYPE_CHECKING:
    from flanneld.desired import AnyAddress, AnyNetwork
    from netlink.handle import Handle

_RTM_GETRULE = 34
_HEADER = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, 2 reserved, action, flags
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY = 1, 2, 3, 6
_FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = 10, 15, 16, 17
_FRA_L3MDEV, _FRA_UID_RANGE, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 19, 20, 22, 23, 24
_NARROW = (_FRA_OIFNAME, _FRA_L3MDEV, _FRA_UID_RANGE, _FRA_IP_PROTO)
_NARROW_PORTS = (_FRA_SPORT_RANGE, _FRA_DPORT_RANGE)
_TO_TABLE, _GOTO = 1, 2
_ACTIONS = {3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_INVERTED = 0x2
TABLES = {253: "default", 254: "main", 255: "local"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; ``iif`` "lo" is for packets made here.  ``narrow``: it asks for more than is here."""

    priority: int
    source: AnyNetwork
    target: AnyNetwork
    iif: str
    mark: tuple[int, int] | None
    action: int
    table: int
    inverted: bool
    narrow: bool

    def applies(self, source: AnyAddress, target: AnyAddress, iif: str, mark: int) -> bool:
        """Whether a packet is one of the rule's; one that asks for a port or user never is."""
        holds = (
            source in self.source
            and target in self.target
            and self.iif in {"", iif or "lo"}
            and (self.mark is None or mark & self.mark[1] == self.mark[0])
        )
        return holds != self.inverted and not self.narrow

    @property
    def refuses(self) -> bool:
        """Whether the rule itself is the end of a packet."""
        return self.action in _ACTIONS and _ACTIONS[self.action] != "nop"

    @property
    def is_usual(self) -> bool:
        """Whether every node has such a rule: all packets, the tables local, main and default."""
        everything = self.source.prefixlen == self.target.prefixlen == 0
        return (
            everything
            and not self.iif
            and self.mark is None
            and not self.inverted
            and self.table in TABLES
            and self.action == _TO_TABLE
        )

    def __str__(self) -> str:
        words = ["not"] if self.inverted else []
        words.append(f"from {self.source if self.source.prefixlen else 'all'}")
        words += [f"to {self.target}"] if self.target.prefixlen else []
        words += [f"iif {self.iif}"] if self.iif else []
        words += [f"fwmark {self.mark[0]:#x}/{self.mark[1]:#x}"] if self.mark else []
        words.append(
            f"lookup {TABLES.get(self.table, self.table)}"
            if self.action == _TO_TABLE
            else _ACTIONS.get(self.action, f"action {self.action}")
        )
        return f"ip rule {self.priority}: {' '.join(words)}"


def read(handle: Handle, version: int) -> list[Rule]:
    """Dump the rules of a family in the order in which the kernel asks them; OSError."""
    flags = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP
    request = Message(_RTM_GETRULE, flags, _HEADER.pack(AF[version], 0, 0, 0, 0, 0, 0, 0, 0))
    found = (decode(message) for message in handle.dump(request))
    return sorted(
        (rule for rule in found if rule.source.version == version), key=lambda rule: rule.priority
    )


def decode(message: Message) -> Rule:
    """Read an RTM_NEWRULE; ValueError."""
    if len(message.body) < _HEADER.size:
        raise ValueError(f"netlink rule of {len(message.body)} bytes")
    family, to_length, from_length, _tos, table, _, _, action, flags = _HEADER.unpack_from(
        message.body
    )
    attrs = parse_attrs(message.body, _HEADER.size)
    mark, mask = to_int(attrs.get(_FRA_FWMARK)), to_int(attrs.get(_FRA_FWMASK))
    return Rule(
        priority=to_int(attrs.get(_FRA_PRIORITY)),
        source=_network(family, attrs.get(_FRA_SRC), from_length),
        target=_network(family, attrs.get(_FRA_DST), to_length),
        iif=to_text(attrs.get(_FRA_IIFNAME)),
        mark=(mark, mask) if mask or mark else None,
        action=action,
        table=to_int(attrs.get(_FRA_TABLE), table),
        inverted=bool(flags & _INVERTED),
        narrow=any(kind in attrs for kind in (*_NARROW, *_NARROW_PORTS)),
    )


def _network(family: int, packed: bytes | None, length: int) -> AnyNetwork:
    size = 4 if family == AF[4] else 16
    return ip_network((packed or bytes(size), length))

"""A packet's way through the chains of a hook, as the kernel takes it.  Pure.

A packet that no chain's drop can have for certain passes.  What only some of the packets meet (a
port, a protocol) does not stop the others; what hangs on a condition that is not read here is
``perhaps``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flanneld.firewall.packet import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.desired import AnyNetwork
    from flanneld.firewall.chains import Base, Firewall, Rule, Table
    from flanneld.firewall.packet import Packet

_MOST = 4096  # verdicts that are remembered
_DEEPEST = 64  # jumps; the kernel takes 16 in nft


@dataclass(frozen=True, slots=True)
class Blame:
    """What drops: where it is, its own words, and how to let the packet through."""

    place: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``dropped`` None: it passes, as far as is known; ``packet`` is what it has become."""

    packet: Packet
    dropped: Blame | None = None
    perhaps: tuple[Blame, ...] = ()


class _Walk:
    """Through one base chain."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self.table = table
        self.packet = packet
        self.dropped: Blame | None = None
        self.perhaps: list[Blame] = []
        self.doubt = False  # whether something that is not read may have accepted it before

    def run(self, base: Base) -> None:
        """Go through the base chain, and end with its policy."""
        if not self._chain(base.chain, Match.ALL, 0) and base.policy == "drop":
            place = self.table.place(base.chain)
            text = "its policy is DROP, and no rule before that accepts"
            remedy = f"accept such packets: {_insertions(self.table, base.chain, self.packet)}"
            self._drop(Blame(place, text, remedy), Match.ALL)

    def _chain(self, name: str, reached: Match, depth: int) -> bool:
        """Go through a chain; whether that ends it for all packets."""
        for rule in self.table.chains.get(name, ()) if depth <= _DEEPEST else ():
            found = min(reached, *(one(self.packet) for one in rule.conditions), Match.ALL)
            if found == Match.NONE:
                continue
            ends = self._rule(name, rule, found, depth)
            if ends is not None and found == Match.ALL:
                return ends
        return False

    def _rule(self, chain: str, rule: Rule, found: Match, depth: int) -> bool | None:
        """Do what a rule does: whether that ends the base chain, or this one; None: it goes on."""
        match rule.act:
            case "accept" | "translate" | "return":
                self.doubt |= found == Match.UNKNOWN
                return rule.act != "return"
            case "drop":
                self._drop(self._blame(chain, rule), found)
                return True
            case "jump" | "goto":
                ended = self._chain(rule.to, found, depth + 1)
                return ended if ended or rule.act == "goto" else None
            case "mark":
                self._mark(rule, found)
            case "unknown":
                self.doubt = True
            case "go on":
                pass
        return None

    def _drop(self, blame: Blame, found: Match) -> None:
        if found == Match.ALL and not self.doubt:
            self.dropped = blame
        elif found != Match.SOME:
            self.perhaps.append(blame)

    def _mark(self, rule: Rule, found: Match) -> None:
        mark = self.packet.mark
        if found == Match.ALL and rule.mark is not None and mark is not None:
            keep, put = rule.mark
            self.packet = replace(self.packet, mark=(mark & keep) ^ put)
        else:
            self.packet = replace(self.packet, mark=None)

    def _blame(self, chain: str, rule: Rule) -> Blame:
        accept = f"accept such packets before it: {_insertions(self.table, chain, self.packet)}"
        remove = f"remove it: {rule.deletion}"
        return Blame(self.table.place(chain), rule.text, f"{remove}; or {accept}")


def _insertions(table: Table, chain: str, packet: Packet) -> str:
    """Spell the commands that accept such packets in a chain, and forwarded ones' answers."""
    ways = [(packet.source, packet.target)]
    ways += [(packet.target, packet.source)] if packet.iif and packet.oif else []
    return " && ".join(_insertion(table, chain, packet, *way) for way in ways)


def _insertion(
    table: Table, chain: str, packet: Packet, source: AnyNetwork, target: AnyNetwork
) -> str:
    port = packet.dport
    if table.tool == "nft":
        ip = "ip" if packet.version == 4 else "ip6"
        words = f"{ip} saddr {source} {ip} daddr {target}"
        words += "" if port is None else f" {packet.protocol} dport {port}"
        return f"nft insert rule {table.name} {chain} {words} accept"
    words = f"-s {source} -d {target}"
    words += "" if port is None else f" -p {packet.protocol} --dport {port}"
    return f"{table.command} -t {table.name} -I {chain} {words} -j ACCEPT"


def judge(firewall: Firewall, hook: str, packet: Packet) -> Verdict:
    """Take a packet through every base chain of a hook; the first that drops it ends its way."""
    if len(firewall.verdicts) > _MOST:
        firewall.verdicts.clear()
    key = (hook, packet)
    if key not in firewall.verdicts:
        firewall.verdicts[key] = _judged(firewall, hook, packet)
    found: Verdict = firewall.verdicts[key]
    return found


def _judged(firewall: Firewall, hook: str, packet: Packet) -> Verdict:
    perhaps: list[Blame] = []
    for table, base in _ordered(firewall, hook, packet):
        walk = _Walk(table, packet)
        walk.doubt = base.hook in {"ingress", "egress"} and not base.device
        walk.run(base)
        perhaps += walk.perhaps
        packet = walk.packet
        if walk.dropped is not None:
            return Verdict(packet, walk.dropped, tuple(perhaps))
    return Verdict(packet, None, tuple(perhaps))


def _ordered(firewall: Firewall, hook: str, packet: Packet) -> list[tuple[Table, Base]]:
    device = packet.oif if hook == "egress" else packet.iif
    found = [
        (table, base)
        for table in firewall.tables
        for base in table.bases
        if base.hook == hook
        and packet.version in table.versions
        and (not base.device or base.device == device)
    ]
    return sorted(found, key=lambda one: one[1].priority)


def translations(firewall: Firewall, hook: str, packet: Packet) -> tuple[str, ...]:
    """Give the targets that rules may put in place of the packet's own, as they are spelled."""
    found = (
        target
        for table, base in _ordered(firewall, hook, packet)
        if base.kind == "nat"
        for target in _targets(table, base.chain, packet, 0)
    )
    return tuple(dict.fromkeys(found))


def _targets(table: Table, chain: str, packet: Packet, depth: int) -> Iterator[str]:
    for rule in table.chains.get(chain, ()) if depth <= _DEEPEST else ():
        if any(one(packet) == Match.NONE for one in rule.conditions):
            continue
        yield from rule.targets
        if rule.act in {"jump", "goto"}:
            yield from _targets(table, rule.to, packet, depth + 1)

"""Packets, and whether a rule's condition holds for them.  Pure.

A ``Packet`` stands for all packets that agree in what it says: a pod's to a subnet, of whatever
protocol.  So a condition holds for all of them, for some, for none; or this program cannot tell,
since it asks for what is not looked at here (a set of ipset, a rate).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from flanneld.desired import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyNetwork


class Match(IntEnum):
    """For how many of the packets a condition holds; of several conditions the least counts."""

    NONE = 0
    UNKNOWN = 1
    SOME = 2
    ALL = 3


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of the packets.

    ``iif`` and ``oif`` are names of links, "" where a hook has none yet; ``protocol`` is "udp" or
    the like, "" for any; ``dport`` None for any; ``state`` as conntrack's ("new", "established");
    ``to_host``: this node itself is the target; ``mark`` None if it is not known.
    """

    source: AnyNetwork
    target: AnyNetwork
    iif: str = ""
    oif: str = ""
    protocol: str = ""
    dport: int | None = None
    state: str = "new"
    to_host: bool = False
    mark: int | None = 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.target.version


Condition = Callable[[Packet], Match]


def unknown(_: Packet) -> Match:
    """Stand for a condition that is not read here."""
    return Match.UNKNOWN


def negated(condition: Condition) -> Condition:
    """Hold where the other does not."""
    turned = {Match.ALL: Match.NONE, Match.NONE: Match.ALL}

    def holds(packet: Packet) -> Match:
        found = condition(packet)
        return turned.get(found, found)

    return holds


def any_of(conditions: Iterable[Condition]) -> Condition:
    """Hold where one of some does."""
    listed = tuple(conditions)

    def holds(packet: Packet) -> Match:
        found = {condition(packet) for condition in listed}
        order = (Match.ALL, Match.UNKNOWN, Match.SOME)
        return next((one for one in order if one in found), Match.NONE)

    return holds


def all_of(conditions: Iterable[Condition]) -> Condition:
    """Hold where each of some does; where there is none, everywhere."""
    listed = tuple(conditions)
    return lambda packet: min((one(packet) for one in listed), default=Match.ALL)


def source(network: AnyNetwork) -> Condition:
    """From an address of a network."""
    return lambda packet: _within(packet.source, network)


def target(network: AnyNetwork) -> Condition:
    """To an address of a network."""
    return lambda packet: _within(packet.target, network)


def _within(one: AnyNetwork, other: AnyNetwork) -> Match:
    if is_inside(one, (other,)):
        return Match.ALL
    return Match.SOME if is_inside(other, (one,)) else Match.NONE


def comes_in(pattern: str) -> Condition:
    """In by a link; ``*`` stands for the rest of its name."""
    return lambda packet: _sure(_is_named(packet.iif, pattern))


def goes_out(pattern: str) -> Condition:
    """Out by a link; ``*`` stands for the rest of its name."""
    return lambda packet: _sure(_is_named(packet.oif, pattern))


def _is_named(name: str, pattern: str) -> bool:
    return bool(name) and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


def of_protocol(name: str) -> Condition:
    """Of a protocol, by name."""
    return lambda packet: _sure(packet.protocol == name) if packet.protocol else Match.SOME


def to_ports(first: int, last: int) -> Condition:
    """To a port from the first to the last."""
    return lambda packet: (
        Match.SOME if packet.dport is None else _sure(first <= packet.dport <= last)
    )


def from_ports(first: int, last: int) -> Condition:
    """From a port from the first to the last; packets have any."""
    return lambda _: Match.ALL if (first, last) == (0, 65535) else Match.SOME


def of_version(version: int) -> Condition:
    """Of an IP version."""
    return lambda packet: _sure(packet.version == version)


def in_state(names: Iterable[str]) -> Condition:
    """In one of conntrack's states, as it names them, in lower case."""
    states = frozenset(names)
    return lambda packet: _sure(packet.state in states)


def marked(value: int, mask: int) -> Condition:
    """With a mark, as far as the mask goes."""
    return lambda packet: (
        Match.UNKNOWN if packet.mark is None else _sure(packet.mark & mask == value)
    )


def to_host(packet: Packet) -> Match:
    """To an address of this node."""
    return _sure(packet.to_host)


def from_host(packet: Packet) -> Match:
    """From an address of this node: what has not come in by a link."""
    return _sure(not packet.iif)


def never(_: Packet) -> Match:
    """For no packet that is looked at here."""
    return Match.NONE


def _sure(holds: bool) -> Match:  # noqa: FBT001 - that is all it is about
    return Match.ALL if holds else Match.NONE

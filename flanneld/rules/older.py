"""Rules that older Go daemons put among everybody's, before they had chains of their own.  Pure.

Up to 0.16 they have no comment; then, up to 0.19, they have the comment of today's.  A comment
proves whose a rule is.  Without one two rules prove it together, which nobody else writes: all that
pods send is masqueraded but multicast, and all that others send them.
"""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise
from typing import TYPE_CHECKING

from flanneld.desired import is_inside
from flanneld.rules import texts
from flanneld.rules.ownership import MULTICAST, overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flanneld.desired import AnyNetwork

_MASQUERADE = (["-j", "MASQUERADE"], ["-j", "MASQUERADE", "--random-fully"])
_PASS = (["-j", "RETURN"], ["-j", "ACCEPT"])


def find(
    tables: Mapping[str, Sequence[str]], ours: Sequence[AnyNetwork]
) -> Iterator[tuple[str, str]]:
    """Give each such rule of our networks, as its table and its line of ``iptables-save``."""
    for chain in texts.CHAINS:
        for line in tables.get(chain.table, ()):
            is_based = line.startswith(f"-A {chain.base} ") and line != chain.jump
            if is_based and chain.note in line and _is_ours(line.split(), ours):
                yield chain.table, line
    proven = _proven(tables, ours)
    for table, base in (("nat", "POSTROUTING"), ("filter", "FORWARD")):
        for line in tables.get(table, ()):
            words = line.split()
            if words[:2] == ["-A", base] and _is_of(words[2:], table, proven):
                yield table, line


def _is_ours(words: list[str], ours: Sequence[AnyNetwork]) -> bool:
    named = [
        network
        for word, value in pairwise(words)
        if word in {"-s", "-d"} and (network := _network(value)) and network not in MULTICAST
    ]
    return any(overlaps(network, own) for network in named for own in ours)


def _proven(tables: Mapping[str, Sequence[str]], ours: Sequence[AnyNetwork]) -> set[AnyNetwork]:
    """Find the networks that an older daemon has masqueraded here."""
    out: set[AnyNetwork] = set()
    into: set[AnyNetwork] = set()
    for line in tables.get("nat", ()):
        match line.split():
            case ["-A", "POSTROUTING", "-s", net, "!", "-d", cast, *rest] if rest in _MASQUERADE:
                network = _network(net)
                if network is not None and _network(cast) in MULTICAST:
                    out.add(network)
            case ["-A", "POSTROUTING", "!", "-s", net, "-d", same, *rest] if rest in _MASQUERADE:
                network = _network(net)
                if network is not None and net == same:
                    into.add(network)
    return {net for net in out & into if any(overlaps(net, own) for own in ours)}


def _is_of(words: list[str], table: str, proven: set[AnyNetwork]) -> bool:
    """Whether a rule without its chain is one of those of a proven network."""
    match words:
        case ["-s" | "-d", net, "-j", "ACCEPT"] if table == "filter":
            return _network(net) in proven
        case ["-s", net, "-d", same, *rest] if rest in _PASS:
            return table == "nat" and net == same and _network(net) in proven
        case ["-s", net, "!", "-d", cast, *rest] if rest in _MASQUERADE:
            return _network(net) in proven and _network(cast) in MULTICAST
        case ["!", "-s", net, "-d", part, *rest] if rest in (*_PASS, *_MASQUERADE):
            network, inside = _network(net), _network(part)
            return network in proven and inside is not None and is_inside(inside, proven)
        case _:
            return False


def _network(text: str) -> AnyNetwork | None:
    try:
        return ip_network(text)
    except ValueError:
        return None

"""Whose a rule is.  Pure.

Two daemons of different networks on one node keep their rules in the same chains, as the Go
daemon's do.  Each looks at its own rules, and keeps the other's behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flanneld.desired import AnyNetwork

_MULTICAST = {ip_network("224.0.0.0/4"), ip_network("ff00::/8")}  # every daemon's rules have it


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's text and the networks that it matches; ``known``: a flannel daemon may have it."""

    text: str
    networks: tuple[AnyNetwork, ...]
    known: bool = True


def part(
    rules: Sequence[Rule], wanted: Sequence[str], ours: Sequence[AnyNetwork]
) -> tuple[list[str], list[str]]:
    """Part a chain into our rules and another daemon's, which are to be kept.

    ``ours`` are the networks that this daemon has, and those it had before: rules of these that
    it would not write today are outdated, not another's.  What names no network is ours, unless
    we want nothing of the chain and another does.
    """
    theirs = [rule for rule in rules if rule.known and _is_of_another(rule.networks, ours)]
    if theirs and not wanted:
        theirs = [rule for rule in rules if rule in theirs or (rule.known and not rule.networks)]
    own = [rule.text for rule in rules if rule not in theirs]
    return own, [rule.text for rule in theirs]


def _is_of_another(named: Iterable[AnyNetwork], ours: Sequence[AnyNetwork]) -> bool:
    kept = [network for network in named if network not in _MULTICAST]
    return bool(kept) and not any(_overlap(network, own) for network in kept for own in ours)


def _overlap(one: AnyNetwork, other: AnyNetwork) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False

"""Whose a rule is.  Pure.

Two daemons of different networks on one node keep their rules in the same chains, as the Go
daemon's do.  Each looks at its own rules, and keeps the other's behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from flanneld.desired import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flanneld.desired import AnyNetwork

MULTICAST = {ip_network("224.0.0.0/4"), ip_network("ff00::/8")}  # every daemon's rules have it


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
    kept = [network for network in named if network not in MULTICAST]
    return bool(kept) and not any(overlaps(network, own) for network in kept for own in ours)


def overlaps(one: AnyNetwork, other: AnyNetwork) -> bool:
    """Whether one network is inside the other."""
    return is_inside(one, (other,)) or is_inside(other, (one,))


def compared(where: str, own: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Say how our rules of a chain differ from those it should have, one sentence each."""
    sentences = [f"{where} lacks: {rule}" for rule in wanted if rule not in own]
    sentences += [f"{where} should not have: {rule}" for rule in own if rule not in wanted]
    if not sentences and list(own) != list(wanted):
        sentences.append(f"{where} has its rules in another order, or twice")
    return sentences

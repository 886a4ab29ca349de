"""The messages that carry out a change of an entry. Pure: a change in, messages out.

Knows: in which order routes of one destination are exchanged, so that there is always one. Must
not know: sockets. A link that does not exist is KeyError: its name is not in ``indexes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.desired import Address, Forward, Neighbour, Route
from flanneld.kernel import entries
from netlink.nlmsg import NLM_F_EXCL, NLM_F_REPLACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.kernel.difference import Change
    from netlink.nlmsg import Message


def requests(change: Change, indexes: Mapping[str, int]) -> list[Message]:
    """Translate the change of an address, a neighbour, an FDB entry or a route."""
    value = change.value
    removed = change.action == "remove"
    if isinstance(value, Route):
        return _route(change, value, indexes)
    if isinstance(value, Address):
        turn = entries.del_address if removed else entries.new_address
        return [turn(indexes[value.link], value.interface)]
    if isinstance(value, Neighbour):
        if removed:
            return [entries.del_neighbour(indexes[value.link], value.address)]
        return [entries.new_neighbour(indexes[value.link], value.address, value.mac)]
    if isinstance(value, Forward):
        return _forward(change, value, indexes[value.link])
    raise TypeError(f"{change} is no change of an entry")


def _forward(change: Change, entry: Forward, index: int) -> list[Message]:
    """Replacing changes the first remote alone: an entry with several goes before."""
    wanted = entries.new_forward(index, entry.mac, entry.remote)
    if change.action in {"remove", "replace"}:
        gone = entries.del_forward(index, entry.mac)
        return [gone] if change.action == "remove" else [gone, wanted]
    return [wanted]


def _route(change: Change, route: Route, indexes: Mapping[str, int]) -> list[Message]:
    """Exchange routes without a moment between them in which there is none.

    NLM_F_REPLACE replaces the first route of a destination and metric, whoever made it. IPv4
    takes the new one before the others instead. IPv6 would make both hops of one route, so there
    it is replaced, all hops at once. A route that differs in flags alone cannot be told from its
    successor by a delete, and goes first.
    """
    old = [entries.del_route(entry) for entry in change.held]
    if change.action == "remove":
        return old
    index = 0 if route.blackhole else indexes[route.link]
    hop = entries.Hop(index, route.gateway, route.onlink, route.scope_link, route.blackhole)
    if not change.held:
        return [entries.new_route(route.destination, hop, NLM_F_EXCL)]
    if route.destination.version == 6:
        return [entries.new_route(route.destination, hop, NLM_F_REPLACE)]
    new = entries.new_route(route.destination, hop, 0)
    if any(_would_match(entry, hop) for entry in change.held):
        return [*old, new]
    return [new, *old]


def _would_match(entry: entries.RouteEntry, hop: entries.Hop) -> bool:
    return entry.protocol == entries.RTPROT_FLANNEL and entry.hop[:2] == hop[:2]

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
        if removed:
            return [entries.del_forward(indexes[value.link], value.mac)]
        return [entries.new_forward(indexes[value.link], value.mac, value.remote)]
    raise TypeError(f"{change} is no change of an entry")


def _route(change: Change, route: Route, indexes: Mapping[str, int]) -> list[Message]:
    """Exchange routes without a moment between them in which there is none, where that can be.

    NLM_F_REPLACE replaces the first route of a destination and metric, whoever made it. IPv4
    takes the new one before the others instead. IPv6 would make both hops of one route, so there
    it is replaced, all hops at once.
    """
    old = [entries.del_route(entry) for entry in change.held]
    if change.action == "remove":
        return old
    index = 0 if route.blackhole else indexes[route.link]
    hop = entries.Hop(index, route.gateway, route.onlink, route.scope_link, route.blackhole)
    if not change.held or any(_is_in_the_way(entry, hop) for entry in change.held):
        return [*old, entries.new_route(route.destination, hop, NLM_F_EXCL)]
    if route.destination.version == 6:
        return [entries.new_route(route.destination, hop, NLM_F_REPLACE)]
    return [entries.new_route(route.destination, hop, 0), *old]


def _is_in_the_way(entry: entries.RouteEntry, hop: entries.Hop) -> bool:
    """Whether a route must go before its successor can come.

    One that differs in flags alone cannot be told from it by a delete. And IPv6 refuses an onlink
    gateway that it can reach by another link (net/ipv6/route.c, ip6_route_check_nh_onlink).
    """
    if entry.destination.version == 6 and hop.onlink:
        return entry.hop.ifindex != hop.ifindex
    return entry.protocol == entries.RTPROT_FLANNEL and entry.hop[:2] == hop[:2]

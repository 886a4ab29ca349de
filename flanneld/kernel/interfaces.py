"""Reads the ``Underlay`` from the kernel: interfaces, addresses, and the routes that name one.

Knows rtnetlink through ``netlink``; chooses nothing.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from flanneld.kernel import underlay
from flanneld.kernel.entries import RTMSG
from flanneld.links import Interface, InterfaceAddress, Underlay
from netlink import inet, nlmsg
from netlink.handle import Handle
from netlink.link import IFF_RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyAddress


def read(reach: AnyAddress | None = None) -> Underlay:
    """Read all of it; ``reach`` is the destination of ``--iface-can-reach``.  OSError."""
    with Handle() as handle:
        interfaces = tuple(_interfaces(handle))
        running = {one.index for one in interfaces if one.running}
        defaults = {version: _defaults(handle, version, running) for version in (4, 6)}
        return Underlay(
            interfaces,
            {version: tuple(index for index, _ in found) for version, found in defaults.items()},
            {version: found[0][1] for version, found in defaults.items() if found and found[0][1]},
            None if reach is None else _route_to(handle, reach),
            underlay.ways(handle, {one.index for one in interfaces if one.is_flannels}),
        )


def mac(index: int) -> str:
    """Give the MAC of an interface; "" if it has none, or is gone.  OSError."""
    with Handle() as handle:
        link = handle.get_link(index)
        return "" if link is None else link.mac


def _interfaces(handle: Handle) -> Iterable[Interface]:
    addresses: dict[int, list[InterfaceAddress]] = {}
    for found in handle.addresses():
        address = ip_address(found.prefix.address.packed)
        entry = InterfaceAddress(address, found.flags, found.prefix.length)
        addresses.setdefault(found.index, []).append(entry)
    for link in sorted(handle.links(), key=lambda link: link.index):
        yield Interface(
            link.index,
            link.name,
            link.mtu,
            tuple(addresses.get(link.index, ())),
            kind=link.kind,
            alias=link.alias,
            mac=link.mac,
            running=bool(link.flags & IFF_RUNNING),
        )


def _defaults(
    handle: Handle, version: int, running: set[int]
) -> list[tuple[int, AnyAddress | None]]:
    """The interfaces and source addresses of default routes in table main, the best first.

    The kernel cannot be asked for them alone, so what is longer is passed over unread: peers'
    routes.  One without a carrier is the last.
    """
    found = handle.dump_of(inet.dump_routes(version, table=inet.RT_TABLE_MAIN))
    routes = []
    for message in found:
        route = None if message.body[1] else inet.Route.decode(message)
        if route is None or route.table != inet.RT_TABLE_MAIN or not route.index:
            continue
        if route.type == inet.RTN_UNICAST:
            source = nlmsg.parse_attrs(message.body, RTMSG.size).get(inet.RTA_PREFSRC)
            order = (route.index not in running, route.priority)
            routes.append((order, route.index, ip_address(source) if source else None))
    return [(index, source) for _, index, source in sorted(routes, key=lambda one: one[0])]


def _route_to(handle: Handle, address: AnyAddress) -> tuple[int, AnyAddress | None] | None:
    """The interface and the source address of a route: ``ip route get ADDRESS``."""
    try:
        answer = underlay.ask(handle, address)
    except nlmsg.NetlinkError:
        return None  # no route; the one who asks says so
    attrs = nlmsg.parse_attrs(answer.body, RTMSG.size)
    source = attrs.get(inet.RTA_PREFSRC)
    return nlmsg.to_int(attrs.get(inet.RTA_OIF)), ip_address(source) if source else None

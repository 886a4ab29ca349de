"""Reads the ``Underlay`` from the kernel: interfaces, addresses, and the routes that name one.

Knows rtnetlink through ``netlink``; chooses nothing.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from flanneld.external import Interface, InterfaceAddress, Underlay
from flanneld.kernel import underlay
from flanneld.kernel.entries import RTMSG
from netlink import inet, nlmsg
from netlink.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyAddress


def read(reach: AnyAddress | None = None) -> Underlay:
    """Read all of it; ``reach`` is the destination of ``--iface-can-reach``.  OSError."""
    with Handle() as handle:
        return Underlay(
            interfaces=tuple(_interfaces(handle)),
            defaults={version: _default(handle, version) for version in (4, 6)},
            reach=None if reach is None else _route_to(handle, reach),
        )


def _interfaces(handle: Handle) -> Iterable[Interface]:
    addresses: dict[int, list[InterfaceAddress]] = {}
    for found in handle.addresses():
        entry = InterfaceAddress(ip_address(found.prefix.address.packed), found.flags)
        addresses.setdefault(found.index, []).append(entry)
    for link in sorted(handle.links(), key=lambda link: link.index):
        yield Interface(link.index, link.name, link.mtu, tuple(addresses.get(link.index, ())))


def _default(handle: Handle, version: int) -> int:
    """The interface of the default route with the least metric in table main; 0 if none.

    The kernel cannot be asked for it alone, so what is longer is passed over unread: peers' routes.
    """
    found = handle.dump_of(inet.dump_routes(version, table=inet.RT_TABLE_MAIN))
    routes = [
        route
        for route in (inet.Route.decode(message) for message in found if not message.body[1])
        if route.table == inet.RT_TABLE_MAIN and route.index and route.type == inet.RTN_UNICAST
    ]
    return min(routes, key=lambda route: route.priority).index if routes else 0


def _route_to(handle: Handle, address: AnyAddress) -> tuple[int, AnyAddress | None] | None:
    """The interface and the source address of a route: ``ip route get ADDRESS``."""
    try:
        answer = underlay.ask(handle, address)
    except nlmsg.NetlinkError:
        return None  # no route; the one who asks says so
    attrs = nlmsg.parse_attrs(answer.body, RTMSG.size)
    source = attrs.get(inet.RTA_PREFSRC)
    return nlmsg.to_int(attrs.get(inet.RTA_OIF)), ip_address(source) if source else None

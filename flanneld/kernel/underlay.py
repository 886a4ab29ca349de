"""What carries the packets: the main table, and the route that the kernel takes to an address.

Knows: RTM_GETROUTE for one address (RTM_F_FIB_MATCH, linux/rtnetlink.h). Must not know: peers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.kernel import entries
from flanneld.links import Way
from netlink import rtnl
from netlink.inet import AF, RTA_DST, RTA_OIF, RTM_GETROUTE
from netlink.nlmsg import NLM_F_REQUEST, Message, NetlinkError, attr

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from flanneld.desired import AnyAddress, AnyNetwork
    from netlink.handle import Handle

_RTM_F_FIB_MATCH = 0x2000
_RTA_SRC, _RTA_IIF, _RTA_MARK = 2, 3, 16

_OF_INTERFACES = {2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
_PROTOCOLS = {
    **_OF_INTERFACES,
    11: "zebra",
    12: "bird",
    42: "babel",
    186: "bgp",
    188: "ospf",
    entries.RTPROT_FLANNEL: "flanneld",
}


def ways(handle: Handle, leaving_out: Collection[int]) -> tuple[Way, ...]:
    """Give the main table's routes that lead somewhere, but for those of some links.

    Routes of a routing daemon are not asked for: a node may have a million of them.  OSError.
    """
    return tuple(
        Way(entry.hop.ifindex, entry.destination, entry.hop.gateway, entry.metric)
        for version in (4, 6)
        for entry in routes(handle, version)
        if not entry.hop.blackhole and entry.hop.ifindex not in leaving_out
    )


def routes(handle: Handle, version: int) -> Iterator[entries.RouteEntry]:
    """Dump the main table's routes of a family that no routing daemon has made. OSError."""
    for protocol in _OF_INTERFACES:
        for message in handle.dump_of(entries.dump_routes(version, protocol)):
            entry = entries.decode_route(message)
            if entry is not None and entry.protocol == protocol:
                yield entry


def ask(
    handle: Handle,
    address: AnyAddress,
    *,
    matched: bool = False,
    source: AnyAddress | None = None,
    iif: int = 0,
    oif: int = 0,
    mark: int = 0,
) -> Message:
    """Ask which route the kernel takes, as ``ip route get`` does; NetlinkError if there is none.

    ``matched`` gives the route itself, of whatever prefix, and not what it means for the address.
    With ``iif``, an ifindex, the packet comes in there: the kernel then looks at what it does with
    such packets too (forwarding, reverse path).  With ``oif`` it has to go out there, as what a
    VXLAN device sends.
    """
    flags = _RTM_F_FIB_MATCH if matched else 0
    length = address.max_prefixlen
    from_length = 0 if source is None else length
    head = entries.RTMSG.pack(AF[address.version], length, from_length, 0, 0, 0, 0, 0, flags)
    body = head + attr(RTA_DST, address.packed)
    body += b"" if source is None else attr(_RTA_SRC, source.packed)
    body += attr(_RTA_IIF, iif) if iif else b""
    body += attr(RTA_OIF, oif) if oif else b""
    body += attr(_RTA_MARK, mark) if mark else b""
    (answer,) = handle.execute(Message(RTM_GETROUTE, NLM_F_REQUEST, body))
    if answer is None:
        raise ValueError(f"the kernel gave no route to {address}")
    return answer


def matching(handle: Handle, address: AnyAddress) -> rtnl.Route:
    """Give the route itself that the kernel takes; NetlinkError if there is none."""
    return rtnl.Route.decode(ask(handle, address, matched=True))


def holder(handle: Handle, destination: AnyNetwork) -> str:
    """Spell the route that has a destination; or how to see it, if it leads nowhere.

    The kernel answers a question for a blackhole with an error, not with the route.
    """
    try:
        route = matching(handle, destination.network_address)
    except NetlinkError as error:
        return f"one that leads nowhere ({error}; ip route show exact {destination})"
    return describe(handle, route)


def describe(handle: Handle, route: rtnl.Route) -> str:
    """Spell a route as ip(8) does."""
    link = handle.get_link(route.index) if route.index else None
    via = "" if route.gw is None else f" via {route.gw}"
    protocol = _PROTOCOLS.get(route.protocol, str(route.protocol))
    name = f" dev {link.name}" if link is not None else ""
    return f"{route.dst}{via}{name} proto {protocol}"

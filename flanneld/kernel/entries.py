"""Addresses, neighbours, FDB entries and routes: their requests, and what dumps say. Pure.

Knows: ifaddrmsg, ndmsg and rtmsg (linux/if_addr.h, neighbour.h, rtnetlink.h) as far as the daemon
uses them, in its own values. Must not know: sockets, which entries are wanted. Links are ifindexes
here. A decoder gives None for an entry that is none of the daemon's business.

The plugin's half of this is ``netlink.inet``: there a value lives for one request, here for months
and in thousands, compared with ``==``.
"""

from __future__ import annotations

import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import TYPE_CHECKING, Any, NamedTuple

from netlink import nlmsg
from netlink.inet import (
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_LOCAL,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_BOOT,
)
from netlink.link import mac_bytes
from netlink.neighbour import (
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
)
from netlink.nlmsg import Message, attr, parse_attrs, to_int

if TYPE_CHECKING:
    from flanneld.desired import AnyAddress, AnyInterface, AnyNetwork

RTPROT_FLANNEL = 244
"""Our own route protocol number: not in linux/rtnetlink.h, nor in the lists of routing daemons."""

RTPROT_OF_GO = RTPROT_BOOT
"""What the Go daemon gives its routes, as ``ip route add`` does."""

IPV6_METRIC = 1024
"""The metric of an IPv6 route that was added without one (IP6_RT_PRIO_USER)."""

UNUSUAL = IPv4Address(0)
"""Stands for the remote of an FDB entry that no flannel makes."""

NTF_SELF = 0x02
NDA_PORT, NDA_VNI = 6, 7
RTN_LOCAL, RTN_BLACKHOLE = 2, 6
RTA_VIA, RTA_ENCAP, RTA_NH_ID = 18, 22, 30

_AF = {4: 2, 6: 10}
_AF_BRIDGE = 7
_LENGTH = {2: 4, 10: 16}
_IFADDR = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_DUMP = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP
_CREATE = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_CREATE
_ODD = (RTA_MULTIPATH, RTA_METRICS, RTA_PREFSRC, RTA_VIA, RTA_ENCAP, RTA_NH_ID)


class Hop(NamedTuple):
    """Where a route goes: ``gateway`` None is on the link, whose ifindex is ``ifindex``.

    A blackhole has none of it.
    """

    ifindex: int
    gateway: AnyAddress | None
    onlink: bool = False
    scope_link: bool = False
    blackhole: bool = False


class RouteEntry(NamedTuple):
    """A unicast or blackhole route of the main table; ``metric`` 0 if it is its family's default.

    It is ``odd`` if there is more to it than its hop: several ones, metrics, a preferred source.
    ``body`` is what the kernel sent, and what deletes it.
    """

    destination: AnyNetwork
    metric: int
    protocol: int
    hop: Hop
    odd: bool
    body: bytes


def dump_addresses(index: int) -> Message:
    """Ask for the addresses of one link."""
    return Message(RTM_GETADDR, _DUMP, _IFADDR.pack(0, 0, 0, 0, index))


def new_address(index: int, interface: AnyInterface) -> Message:
    """Give a link an address, in IPv6 without duplicate address detection."""
    flags = _CREATE | nlmsg.NLM_F_REPLACE
    return Message(RTM_NEWADDR, flags, _address(index, interface, IFA_F_NODAD))


def del_address(index: int, interface: AnyInterface) -> Message:
    """Take an address off a link."""
    return Message(RTM_DELADDR, nlmsg.NLM_F_REQUEST, _address(index, interface, 0))


def _address(index: int, interface: AnyInterface, flags: int) -> bytes:
    if interface.version == 4:
        flags = 0
    length = interface.network.prefixlen
    packed = interface.packed
    head = _IFADDR.pack(_AF[interface.version], length, flags, RT_SCOPE_UNIVERSE, index)
    return head + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)


def decode_address(message: Message) -> tuple[int, AnyInterface] | None:
    """Decode an address of global scope: ifindex, address."""
    body = message.body
    family, length, _flags, scope, index = _head(_IFADDR, body)
    if family not in _LENGTH or scope != RT_SCOPE_UNIVERSE:
        return None
    attrs = parse_attrs(body, _IFADDR.size)
    packed = attrs.get(IFA_LOCAL) or attrs.get(IFA_ADDRESS, b"")
    if family == _AF[4]:
        return index, IPv4Interface((packed, length))
    return index, IPv6Interface((packed, length))


def dump_neighbours(index: int) -> Message:
    """Ask for the neighbours of one link, of both families."""
    return Message(RTM_GETNEIGH, _DUMP, _NDMSG.pack(0, 0, 0, 0, 0) + attr(NDA_IFINDEX, index))


def new_neighbour(index: int, address: AnyAddress, mac: str) -> Message:
    """Make a neighbour, or overwrite what the table has of its address."""
    head = _NDMSG.pack(_AF[address.version], index, NUD_PERMANENT, 0, RTN_UNICAST)
    body = head + attr(NDA_DST, address.packed) + attr(NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, _CREATE | nlmsg.NLM_F_REPLACE, body)


def del_neighbour(index: int, address: AnyAddress) -> Message:
    """Forget a neighbour."""
    body = _NDMSG.pack(_AF[address.version], index, 0, 0, 0) + attr(NDA_DST, address.packed)
    return Message(RTM_DELNEIGH, nlmsg.NLM_F_REQUEST, body)


def decode_neighbour(message: Message) -> tuple[int, AnyAddress, str] | None:
    """Decode a permanent neighbour: ifindex, address, MAC."""
    family, index, state, _flags, _type = _head(_NDMSG, message.body)
    if family not in _LENGTH or not state & NUD_PERMANENT:
        return None
    attrs = parse_attrs(message.body, _NDMSG.size)
    address = _ip(attrs.get(NDA_DST, b""))
    return None if address is None else (index, address, attrs.get(NDA_LLADDR, b"").hex(":"))


def dump_forwards(index: int) -> Message:
    """Ask for the FDB of one VXLAN device."""
    body = _NDMSG.pack(_AF_BRIDGE, 0, 0, 0, 0) + attr(NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, _DUMP, body)


def new_forward(index: int, mac: str, remote: AnyAddress) -> Message:
    """Make the FDB entry of a MAC, or give the one that it has another remote."""
    head = _NDMSG.pack(_AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0)
    body = head + attr(NDA_LLADDR, mac_bytes(mac)) + attr(NDA_DST, remote.packed)
    return Message(RTM_NEWNEIGH, _CREATE | nlmsg.NLM_F_REPLACE, body)


def del_forward(index: int, mac: str) -> Message:
    """Forget a MAC and all its remotes."""
    head = _NDMSG.pack(_AF_BRIDGE, index, 0, NTF_SELF, 0)
    return Message(RTM_DELNEIGH, nlmsg.NLM_F_REQUEST, head + attr(NDA_LLADDR, mac_bytes(mac)))


def decode_forward(message: Message) -> tuple[int, str, AnyAddress] | None:
    """Decode a permanent FDB entry: ifindex, MAC, remote.

    The remote is UNUSUAL if the entry has a port, a VNI or an interface of its own.
    """
    family, index, state, _flags, _type = _head(_NDMSG, message.body)
    if family != _AF_BRIDGE or not state & NUD_PERMANENT:
        return None
    attrs = parse_attrs(message.body, _NDMSG.size)
    mac = attrs.get(NDA_LLADDR, b"").hex(":")
    if NDA_PORT in attrs or NDA_VNI in attrs or NDA_IFINDEX in attrs:
        return index, mac, UNUSUAL
    return index, mac, _ip(attrs.get(NDA_DST, b"")) or UNUSUAL


def dump_routes(version: int, protocol: int) -> Message:
    """Ask for the routes of one IP version, of one protocol, in the main table."""
    return Message(
        RTM_GETROUTE, _DUMP, RTMSG.pack(_AF[version], 0, 0, 0, RT_TABLE_MAIN, protocol, 0, 0, 0)
    )


def new_route(destination: AnyNetwork, hop: Hop, flags: int) -> Message:
    """Add a route of ours, with NLM_F_EXCL or NLM_F_REPLACE or, before others, neither."""
    scope = RT_SCOPE_LINK if hop.scope_link else RT_SCOPE_UNIVERSE
    head = RTMSG.pack(
        _AF[destination.version],
        destination.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_FLANNEL,
        scope,
        RTN_BLACKHOLE if hop.blackhole else RTN_UNICAST,
        RTNH_F_ONLINK if hop.onlink else 0,
    )
    body = head + attr(RTA_DST, destination.network_address.packed)
    if hop.ifindex:
        body += attr(RTA_OIF, hop.ifindex)
    if hop.gateway is not None:
        body += attr(RTA_GATEWAY, hop.gateway.packed)
    return Message(RTM_NEWROUTE, _CREATE | flags, body)


def del_route(entry: RouteEntry) -> Message:
    """Delete the route that a dump described."""
    return Message(RTM_DELROUTE, nlmsg.NLM_F_REQUEST, entry.body)


def decode_route(message: Message) -> RouteEntry | None:
    """Decode a unicast or blackhole route of the main table."""
    body = message.body
    family, length, source, tos, table, protocol, scope, kind, flags = _head(RTMSG, body)
    if kind not in {RTN_UNICAST, RTN_BLACKHOLE} or family not in _LENGTH or source or tos:
        return None
    attrs = parse_attrs(body, RTMSG.size)
    if to_int(attrs.get(RTA_TABLE), table) != RT_TABLE_MAIN:
        return None
    packed = attrs.get(RTA_DST) or bytes(_LENGTH[family])
    metric = to_int(attrs.get(RTA_PRIORITY))
    destination: AnyNetwork
    if family == _AF[4]:
        destination = IPv4Network((packed, length))
    else:
        destination = IPv6Network((packed, length))
        metric = 0 if metric == IPV6_METRIC else metric
    if kind == RTN_BLACKHOLE:  # in IPv6 it has the interface lo
        hop = Hop(0, None, blackhole=True)
    else:
        hop = Hop(
            to_int(attrs.get(RTA_OIF)),
            _ip(
                attrs.get(RTA_GATEWAY) or attrs.get(RTA_VIA, b"")[2:]
            ),  # struct rtvia: family first
            onlink=bool(flags & RTNH_F_ONLINK),
            scope_link=scope == RT_SCOPE_LINK,
        )
    odd = any(kind in attrs for kind in _ODD)
    return RouteEntry(destination, metric, protocol, hop, odd, body)


def _head(layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) < layout.size:
        raise ValueError(f"netlink message of {len(body)} bytes, its header has {layout.size}")
    return layout.unpack_from(body)


def _ip(packed: bytes) -> AnyAddress | None:
    if len(packed) == 4:
        return IPv4Address(packed)
    return IPv6Address(packed) if len(packed) == 16 else None

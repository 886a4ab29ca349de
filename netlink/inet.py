"""Addresses and routes: their requests and answers. Pure: values to bytes and back.

Knows: ifaddrmsg, rtmsg and their attributes (linux/if_addr.h, rtnetlink.h; rtnetlink(7)).
Must not know: sockets, plans, what an address is for. Imports struct.
"""

from __future__ import annotations

import struct

from cni.cidr import Address, Prefix
from netlink import nlmsg
from netlink.nlmsg import Message, attr, nested, parse_attrs, to_int

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_TARGET_NETNSID = 1, 2, 4, 8, 10
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE = 7, 8, 9, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RTNH_F_ONLINK = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RTN_UNICAST = 1


AF = {0: 0, 4: 2, 6: 10}
"""The kernel's address families, by IP version; 0 is every family."""

_VERSION = {2: 4, 10: 6}
_BITS = {2: 32, 10: 128}
_IFADDR = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst len, src len, tos, table, proto, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index; then attributes
_GET = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP
_CREATE = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_CREATE


class InterfaceAddress:
    """An address of link ``index``: ``prefix`` (the local one), ``flags`` IFA_F_*, ``scope``.

    ``nsid`` is the namespace's that was asked for, None for the socket's own.
    """

    __slots__ = ("flags", "index", "nsid", "prefix", "scope")

    def __init__(
        self, index: int, prefix: Prefix, flags: int, scope: int, nsid: int | None = None
    ) -> None:
        self.index = index
        self.prefix = prefix
        self.flags = flags
        self.scope = scope
        self.nsid = nsid

    @classmethod
    def decode(cls, message: Message) -> InterfaceAddress:
        """Decode an RTM_NEWADDR. ValueError when it is not one of IP."""
        body = message.body
        if message.type != RTM_NEWADDR or len(body) < _IFADDR.size:
            raise ValueError(f"netlink message {message.type} is no address")
        family, length, flags, scope, index = _IFADDR.unpack_from(body)
        attrs = parse_attrs(body, _IFADDR.size)
        local = attrs.get(IFA_LOCAL) or attrs.get(IFA_ADDRESS)
        prefix = _prefix(family, local, length)
        target = attrs.get(IFA_TARGET_NETNSID)
        nsid = None if target is None else to_int(target)
        return cls(index, prefix, to_int(attrs.get(IFA_FLAGS), flags), scope, nsid)


class Route:
    """A route: ``dst``, ``gw`` (None: on the link), ``index`` of the link or 0, and the rest.

    ``mtu`` and ``advmss`` are 0 when the route sets none. Of a multipath route ``gw`` and
    ``index`` are the first hop's, and ``gateways`` are those of all; of any other it is ``gw``.
    """

    __slots__ = (
        "advmss",
        "dst",
        "flags",
        "gateways",
        "gw",
        "index",
        "mtu",
        "priority",
        "protocol",
        "scope",
        "table",
        "type",
    )

    def __init__(self, dst: Prefix, header: tuple[int, ...], attrs: dict[int, bytes]) -> None:
        _family, _len, _src, _tos, table, self.protocol, self.scope, self.type, self.flags = header
        self.dst = dst
        self.table = to_int(attrs.get(RTA_TABLE), table)
        self.priority = to_int(attrs.get(RTA_PRIORITY))
        metrics = parse_attrs(attrs.get(RTA_METRICS, b""))
        self.mtu = to_int(metrics.get(RTAX_MTU))
        self.advmss = to_int(metrics.get(RTAX_ADVMSS))
        self.index = to_int(attrs.get(RTA_OIF))
        ways = _ways(attrs[RTA_MULTIPATH]) if RTA_MULTIPATH in attrs else [(self.index, attrs)]
        self.index = ways[0][0] if ways else self.index
        found = (way.get(RTA_GATEWAY) for _, way in ways)
        self.gateways = [None if gw is None else Address.from_packed(gw) for gw in found]
        self.gw = self.gateways[0] if self.gateways else None

    @classmethod
    def decode(cls, message: Message) -> Route:
        """Decode an RTM_NEWROUTE. ValueError when it is not one of IP."""
        body = message.body
        if message.type != RTM_NEWROUTE or len(body) < _RTMSG.size:
            raise ValueError(f"netlink message {message.type} is no route")
        header = _RTMSG.unpack_from(body)
        attrs = parse_attrs(body, _RTMSG.size)
        return cls(_prefix(header[0], attrs.get(RTA_DST), header[1]), header, attrs)


def new_address(
    index: int, prefix: Prefix, *, nodad: bool = False, replace: bool = False
) -> Message:
    """Give a link an address, in IPv4 with its subnet's broadcast address (none from /31 on).

    ``nodad`` lets an IPv6 address be used at once, without duplicate address detection.
    """
    flags = _CREATE | (nlmsg.NLM_F_REPLACE if replace else nlmsg.NLM_F_EXCL)
    body = _address(index, prefix, IFA_F_NODAD if nodad else 0)
    if prefix.family == 4 and prefix.length < 31:
        body += attr(IFA_BROADCAST, prefix.last.packed)
    return Message(RTM_NEWADDR, flags, body)


def del_address(index: int, prefix: Prefix) -> Message:
    """Take an address off a link."""
    return Message(RTM_DELADDR, nlmsg.NLM_F_REQUEST, _address(index, prefix, 0))


def dump_addresses(index: int = 0, family: int = 0, nsid: int | None = None) -> Message:
    """Ask for the addresses of one link or all; ``family`` 4, 6 or 0.

    With ``nsid`` those of another namespace, from Linux 4.20 on; an older kernel does not heed it.
    """
    body = _IFADDR.pack(AF[family], 0, 0, 0, index)
    return Message(
        RTM_GETADDR, _GET, body if nsid is None else body + attr(IFA_TARGET_NETNSID, nsid)
    )


def new_route(
    index: int,
    dst: Prefix,
    *,
    gw: Address | None = None,
    scope: int | None = None,
    mtu: int | None = None,
    advmss: int | None = None,
    priority: int | None = None,
    table: int | None = None,
    protocol: int = RTPROT_BOOT,
    append: bool = True,
    onlink: bool = False,
) -> Message:
    """Add a route out of link ``index``. ``append`` False refuses one to the same destination.

    Of appended ones IPv4 takes the first, IPv6 makes one route with several ways.

    The scope defaults to what ip(8) chooses: link for IPv4 without gateway, else universe.
    """
    if scope is None:
        scope = RT_SCOPE_LINK if gw is None and dst.family == 4 else RT_SCOPE_UNIVERSE
    flags = _CREATE | (nlmsg.NLM_F_APPEND if append else nlmsg.NLM_F_EXCL)
    head = _route_head(dst, table, protocol, scope, RTNH_F_ONLINK if onlink else 0)
    attrs = _route_attrs(index, dst, gw, priority, table)
    metrics = [attr(kind, n) for kind, n in ((RTAX_MTU, mtu), (RTAX_ADVMSS, advmss)) if n]
    if metrics:
        attrs += nested(RTA_METRICS, *metrics)
    return Message(RTM_NEWROUTE, flags, head + attrs)


def del_route(
    index: int,
    dst: Prefix,
    *,
    gw: Address | None = None,
    priority: int | None = None,
    table: int | None = None,
    protocol: int = 0,
) -> Message:
    """Delete the first route that agrees with everything given; ``index`` 0 is any link."""
    head = _route_head(dst, table, protocol, RT_SCOPE_NOWHERE, 0)
    body = head + _route_attrs(index, dst, gw, priority, table)
    return Message(RTM_DELROUTE, nlmsg.NLM_F_REQUEST, body)


def dump_routes(family: int, index: int | None = None, table: int | None = None) -> Message:
    """Ask for the routes of ``family`` 4 or 6, of every table and link unless told otherwise."""
    body = _RTMSG.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)
    if index is not None:
        body += attr(RTA_OIF, index)
    if table is not None:
        body += attr(RTA_TABLE, table)
    return Message(RTM_GETROUTE, _GET, body)


def _address(index: int, prefix: Prefix, flags: int) -> bytes:
    head = _IFADDR.pack(AF[prefix.family], prefix.length, flags, RT_SCOPE_UNIVERSE, index)
    packed = prefix.address.packed
    return head + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)


def _route_head(dst: Prefix, table: int | None, protocol: int, scope: int, flags: int) -> bytes:
    table = RT_TABLE_MAIN if table is None else table if table < 256 else 0
    kind = RTN_UNICAST if protocol else 0
    return _RTMSG.pack(AF[dst.family], dst.length, 0, 0, table, protocol, scope, kind, flags)


def _route_attrs(
    index: int, dst: Prefix, gw: Address | None, priority: int | None, table: int | None
) -> bytes:
    attrs = attr(RTA_DST, dst.first.packed) if dst.length else b""
    if gw is not None:
        attrs += attr(RTA_GATEWAY, gw.packed)
    if index:
        attrs += attr(RTA_OIF, index)
    if priority:
        attrs += attr(RTA_PRIORITY, priority)
    if table is not None and table > 255:
        attrs += attr(RTA_TABLE, table)
    return attrs


def _ways(hops: bytes) -> list[tuple[int, dict[int, bytes]]]:
    """Decode RTA_MULTIPATH: of each way the ifindex, and its attributes."""
    found = []
    while len(hops) >= _RTNEXTHOP.size:
        length, _flags, _hops, index = _RTNEXTHOP.unpack_from(hops)
        if not _RTNEXTHOP.size <= length <= len(hops):
            raise ValueError(f"a way of {length} bytes with {len(hops)} left")
        found.append((index, parse_attrs(hops[:length], _RTNEXTHOP.size)))
        hops = hops[(length + 3) & ~3 :]
    return found


def _prefix(family: int, packed: bytes | None, length: int) -> Prefix:
    bits = _BITS.get(family)
    if bits is None:
        raise ValueError(f"address family {family} is not IP")
    if packed is None:  # a default route has no destination attribute
        packed = bytes(bits // 8)
    if len(packed) * 8 != bits:
        raise ValueError(f"address of {len(packed)} bytes in family {family}")
    return Prefix(Address.from_packed(packed), length)

"""Links: what the kernel says of a network interface, and how to ask. Pure: bytes to values.

Knows: ifinfomsg and IFLA_* (linux/if_link.h, rtnetlink(7)), namespace ids (linux/net_namespace.h).
Must not know: sockets, plans, what a link is for. Wherever a request takes ``link``, an int is
an ifindex and a str the name it has now. Imports struct.
"""

from __future__ import annotations

import struct

from netlink import nlmsg
from netlink.nlmsg import (
    Message,
    attr,
    nested,
    parse_attrs,
    to_int,
    to_text,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWNSID = 88
RTM_GETNSID = 90

IFF_UP = 0x1
IFF_RUNNING = 0x40
IFF_PROMISC = 0x100
IF_OPER_UP = 6

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_GROUP = 27
IFLA_EXT_MASK = 29
IFLA_LINK_NETNSID = 37
IFLA_TARGET_NETNSID = 46

IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5

IFLA_BR_VLAN_FILTERING = 7
IFLA_BRPORT_STATE = 1
IFLA_BRPORT_MODE = 4  # hairpin
IFLA_BRPORT_ISOLATED = 33

BR_STATE_DISABLED = 0
BR_STATE_FORWARDING = 3
RTEXT_FILTER_SKIP_STATS = 8
NETNSA_NSID = 1
NETNSA_FD = 3

IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, which of the flags to change
_NO_STATS = attr(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


class Port:
    """What a bridge knows of one port: ``state`` (BR_STATE_*), ``hairpin``, ``isolated``."""

    __slots__ = ("hairpin", "isolated", "state")

    def __init__(self, state: int, *, hairpin: bool, isolated: bool) -> None:
        self.state = state
        self.hairpin = hairpin
        self.isolated = isolated


class Link:
    """A network interface as the kernel describes it.

    ``kind`` is "bridge", "veth", ... or "" for hardware; ``mac`` "aa:bb:.." or ""; ``flags`` IFF_*;
    ``operstate`` IF_OPER_*; ``master`` the ifindex of its bridge, or 0; ``link`` the ifindex of
    its peer or lower device, in the namespace with the id ``link_netnsid``, or in its own when that
    is None; ``port`` is set for a port of a bridge; ``vlan_filtering`` is a bridge's own.
    """

    __slots__ = (
        "alias",
        "flags",
        "group",
        "index",
        "kind",
        "link",
        "link_netnsid",
        "mac",
        "master",
        "mtu",
        "name",
        "operstate",
        "port",
        "vlan_filtering",
    )

    def __init__(self, index: int, flags: int, attrs: dict[int, bytes]) -> None:
        self.index = index
        self.flags = flags
        self.name = to_text(attrs.get(IFLA_IFNAME))
        self.mac = attrs.get(IFLA_ADDRESS, b"").hex(":")
        self.mtu = to_int(attrs.get(IFLA_MTU))
        self.operstate = to_int(attrs.get(IFLA_OPERSTATE))
        self.master = to_int(attrs.get(IFLA_MASTER))
        self.link = to_int(attrs.get(IFLA_LINK))
        netnsid = attrs.get(IFLA_LINK_NETNSID)
        self.link_netnsid = None if netnsid is None else to_int(netnsid)
        self.alias = to_text(attrs.get(IFLA_IFALIAS))
        self.group = to_int(attrs.get(IFLA_GROUP))
        info = parse_attrs(attrs.get(IFLA_LINKINFO, b""))
        self.kind = to_text(info.get(IFLA_INFO_KIND))
        self.vlan_filtering = self.kind == "bridge" and bool(
            to_int(parse_attrs(info.get(IFLA_INFO_DATA, b"")).get(IFLA_BR_VLAN_FILTERING))
        )
        self.port = _port(info)

    @classmethod
    def decode(cls, message: Message) -> Link:
        """Decode an RTM_NEWLINK or RTM_DELLINK. ValueError when it is not one."""
        body = message.body
        if message.type not in {RTM_NEWLINK, RTM_DELLINK} or len(body) < IFINFO.size:
            raise ValueError(f"netlink message {message.type} is no link")
        _family, _type, index, flags, _change = IFINFO.unpack_from(body)
        return cls(index, flags, parse_attrs(body, IFINFO.size))

    @property
    def is_up(self) -> bool:
        """Whether the link is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def is_running(self) -> bool:
        """Whether it sends: operstate (RFC 2863) up, or unknown for a link that keeps none."""
        return bool(self.flags & IFF_RUNNING)


def _port(info: dict[int, bytes]) -> Port | None:
    if to_text(info.get(IFLA_INFO_SLAVE_KIND)) != "bridge":
        return None
    data = parse_attrs(info.get(IFLA_INFO_SLAVE_DATA, b""))
    return Port(
        to_int(data.get(IFLA_BRPORT_STATE)),
        hairpin=bool(to_int(data.get(IFLA_BRPORT_MODE))),
        isolated=bool(to_int(data.get(IFLA_BRPORT_ISOLATED))),
    )


def paired(a: Link, b: Link) -> bool:
    """Whether each of two veth ends names the other as its peer, by ifindex.

    Indexes repeat between namespaces: for a proof, also compare ``link_netnsid`` with
    ``Handle.nsid`` of the other end's namespace.
    """
    return a.kind == b.kind == "veth" and a.link == b.index and b.link == a.index


def end_of(message: Message) -> int:
    """Read of an event which link is gone: the ifindex, or 0 if it tells of something else.

    The RTM_DELLINK of a link's being a bridge's port no more has the family AF_BRIDGE.
    """
    if message.type != RTM_DELLINK or len(message.body) < IFINFO.size or message.body[0] != 0:
        return 0
    index: int = IFINFO.unpack_from(message.body)[2]
    return index


def group_of(message: Message) -> int:
    """Read of an RTM_NEWLINK nothing but the link's group (IFLA_GROUP)."""
    return to_int(parse_attrs(message.body, IFINFO.size).get(IFLA_GROUP))


def get_link(link: int | str, nsid: int | None = None) -> Message:
    """Ask for one link, without its counters. Alternative names count as names.

    ``nsid`` is the id by which this namespace knows the link's, if that is another one.
    """
    index, attrs = which(link)
    if nsid is not None:
        attrs += attr(IFLA_TARGET_NETNSID, nsid)
    body = IFINFO.pack(0, 0, index, 0, 0) + attrs + _NO_STATS
    return Message(RTM_GETLINK, nlmsg.NLM_F_REQUEST, body)


def dump_links(*, master: int | None = None, kind: str | None = None) -> Message:
    """Ask for all links, or those with this master or of this kind."""
    attrs = _NO_STATS
    if master is not None:
        attrs += attr(IFLA_MASTER, master)
    if kind is not None:
        attrs += nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, kind))
    body = IFINFO.pack(0, 0, 0, 0, 0) + attrs
    return Message(RTM_GETLINK, nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP, body)


def get_nsid(netns_fd: int) -> Message:
    """Ask for the id by which this namespace knows the one of ``netns_fd``."""
    return Message(RTM_GETNSID, nlmsg.NLM_F_REQUEST, b"\0\0\0\0" + attr(NETNSA_FD, netns_fd))


def decode_nsid(message: Message) -> int | None:
    """Decode an RTM_NEWNSID: the id, or None when there is none yet."""
    if message.type != RTM_NEWNSID:
        raise ValueError(f"netlink message {message.type} is no namespace id")
    nsid = parse_attrs(message.body, 4).get(NETNSA_NSID)
    if nsid is None or nsid == b"\xff\xff\xff\xff":
        return None
    return to_int(nsid)


def mac_bytes(mac: str) -> bytes:
    """Decode "aa:bb:cc:dd:ee:ff". ValueError when it is no Ethernet address."""
    octets = mac.split(":")
    if len(octets) != 6 or any(len(octet) != 2 for octet in octets):
        raise ValueError(f"invalid MAC address {mac!r}")
    return bytes.fromhex("".join(octets))


def which(link: int | str) -> tuple[int, bytes]:
    """Return what selects a link in a request: the header's ifindex and further attributes."""
    return (link, b"") if isinstance(link, int) else (0, attr(IFLA_IFNAME, link))

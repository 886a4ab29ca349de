"""VXLAN devices: the request that makes one, and what the kernel says of one. Pure, no socket.

Knows: IFLA_VXLAN_* (linux/if_link.h; drivers/net/vxlan/vxlan_core.c for what is compared when two
devices meet). Must not know: peers, or why a device is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from netlink import nlmsg
from netlink.link import (
    IFINFO,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    RTM_NEWLINK,
    Link,
    mac_bytes,
)
from netlink.nlmsg import Message, attr, attr_u8, nested, parse_attrs, to_int

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from flanneld.desired import AnyAddress, Vxlan

IFLA_VXLAN_ID = 1
IFLA_VXLAN_GROUP = 2
IFLA_VXLAN_LINK = 3
IFLA_VXLAN_LOCAL = 4
IFLA_VXLAN_LEARNING = 7
IFLA_VXLAN_L2MISS = 13
IFLA_VXLAN_L3MISS = 14
IFLA_VXLAN_PORT = 15
IFLA_VXLAN_GROUP6 = 16
IFLA_VXLAN_LOCAL6 = 17
IFLA_VXLAN_GBP = 23
IFLA_VXLAN_COLLECT_METADATA = 25


@dataclass(frozen=True, slots=True)
class VxlanLink:
    """A VXLAN device as the kernel describes it; ``underlay`` is an ifindex, or 0.

    ``ordinary`` is False if it floods to a group, reports misses, or takes its VNI from metadata
    (``external``): no device of a flannel does.
    """

    link: Link
    vni: int
    port: int
    underlay: int
    local: AnyAddress | None
    gbp: bool
    learning: bool
    external: bool
    ordinary: bool

    def __str__(self) -> str:
        external = " external" if self.external else ""
        return f"device {self.link.name} type vxlan id {self.vni} dstport {self.port}{external}"

    def is_like(self, wanted: Vxlan, underlay: int) -> bool:
        """Whether it can be reused: what it lacks then can be changed while it is in use."""
        return (
            self.ordinary
            and (
                self.vni,
                self.underlay,
                self.local,
                self.gbp,
                self.learning,
            )
            == (wanted.vni, underlay, wanted.local, wanted.gbp, wanted.learning)
            and (wanted.port in {0, self.port})
        )

    def conflicts(self, wanted: Vxlan) -> bool:
        """Whether it keeps the kernel from making or starting the wanted one.

        The kernel refuses a second device of one VNI and port and family, and a port that an
        ``external`` device has.
        """
        if self.link.name == wanted.name or self.port != (wanted.port or DEFAULT_PORT):
            return False
        return self.external or (
            self.vni == wanted.vni
            and (self.local is None or self.local.version == wanted.local.version)
        )


DEFAULT_PORT = 8472
"""Linux's own, older than IANA's 4789 (module parameter ``udp_port``)."""


def new_vxlan(wanted: Vxlan, underlay: int) -> Message:
    """Make the device, down, on top of the link with the ifindex ``underlay``."""
    local = IFLA_VXLAN_LOCAL if wanted.local.version == 4 else IFLA_VXLAN_LOCAL6
    data = [
        attr(IFLA_VXLAN_ID, wanted.vni),
        attr(IFLA_VXLAN_LINK, underlay),
        attr(local, wanted.local.packed),
        attr_u8(IFLA_VXLAN_LEARNING, wanted.learning),
    ]
    if wanted.port:
        data.append(attr(IFLA_VXLAN_PORT, wanted.port.to_bytes(2, "big")))
    if wanted.gbp:
        data.append(attr(IFLA_VXLAN_GBP, b""))
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + attr(IFLA_IFNAME, wanted.name)
        + attr(IFLA_ADDRESS, mac_bytes(wanted.mac))
        + attr(IFLA_MTU, wanted.mtu)
        + nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, "vxlan"), nested(IFLA_INFO_DATA, *data))
    )
    flags = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_CREATE | nlmsg.NLM_F_EXCL
    return Message(RTM_NEWLINK, flags, body)


def decode(message: Message) -> VxlanLink | None:
    """Decode an RTM_NEWLINK; None if it is another kind of link. ValueError if it is none."""
    link = Link.decode(message)
    if link.kind != "vxlan":
        return None
    info = parse_attrs(parse_attrs(message.body, IFINFO.size).get(IFLA_LINKINFO, b""))
    data = parse_attrs(info.get(IFLA_INFO_DATA, b""))
    external = bool(to_int(data.get(IFLA_VXLAN_COLLECT_METADATA)))
    grouped = any(any(data.get(kind, b"")) for kind in (IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6))
    missing = any(to_int(data.get(kind)) for kind in (IFLA_VXLAN_L2MISS, IFLA_VXLAN_L3MISS))
    return VxlanLink(
        link=link,
        vni=to_int(data.get(IFLA_VXLAN_ID)),
        port=int.from_bytes(data.get(IFLA_VXLAN_PORT, b""), "big"),
        underlay=to_int(data.get(IFLA_VXLAN_LINK)),
        local=_local(data),
        gbp=IFLA_VXLAN_GBP in data,
        learning=bool(to_int(data.get(IFLA_VXLAN_LEARNING))),
        external=external,
        ordinary=not (external or grouped or missing),
    )


def _local(data: dict[int, bytes]) -> IPv4Address | IPv6Address | None:
    packed = data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6)
    return ip_address(packed) if packed is not None and len(packed) in {4, 16} else None

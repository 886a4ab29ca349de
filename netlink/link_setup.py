"""Link set-up: the requests that make, change and delete network interfaces. Pure: values to bytes.

Knows: the bridge, veth and vlan kinds and what each takes at creation (linux/if_link.h).
Must not know: sockets, plans, what a link is for. Wherever a request takes ``link``, an int is
an ifindex and a str the name it has now: by name, a request can follow the one that makes the
link in the same batch. No imports.
"""

from __future__ import annotations

from netlink import nlmsg
from netlink.link import (
    IFF_PROMISC,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_BR_VLAN_FILTERING,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    RTM_DELLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    mac_bytes,
    which,
)
from netlink.nlmsg import Message, attr, attr_u8, attr_u16, nested

IFLA_NET_NS_FD = 28
IFLA_VLAN_ID = 1
VETH_INFO_PEER = 1

_CREATE = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_CREATE | nlmsg.NLM_F_EXCL


def new_bridge(
    name: str, *, mac: str, mtu: int | None = None, up: bool = True, vlan_filtering: bool = False
) -> Message:
    """Make a bridge. Giving it a MAC keeps it from taking the lowest of its ports'."""
    data = [attr_u8(IFLA_BR_VLAN_FILTERING, 1)] if vlan_filtering else []
    return _new_link(IFF_UP if up else 0, _named(name, mac, mtu), _link_info("bridge", *data))


def new_veth(
    name: str,
    *,
    mac: str,
    mtu: int | None = None,
    master: int | None = None,
    up: bool = True,
    peer_name: str,
    peer_mac: str,
    peer_netns_fd: int | None = None,
) -> Message:
    """Make a veth pair, this end here, the peer in the namespace of ``peer_netns_fd`` or here too.

    The peer is born down: the kernel refuses IFF_UP for it (ENOTCONN, the pair is not joined
    yet). An alias or port flags are ignored at creation, so they follow in the same batch.
    """
    peer = IFINFO.pack(0, 0, 0, 0, 0) + _named(peer_name, peer_mac, mtu)
    if peer_netns_fd is not None:
        peer += attr(IFLA_NET_NS_FD, peer_netns_fd)
    attrs = _named(name, mac, mtu)
    if master is not None:
        attrs += attr(IFLA_MASTER, master)
    return _new_link(IFF_UP if up else 0, attrs, _link_info("veth", attr(VETH_INFO_PEER, peer)))


def new_vlan(name: str, *, link: int, vid: int, mac: str | None = None, up: bool = True) -> Message:
    """Make a VLAN device for ``vid`` on top of the link with the ifindex ``link``."""
    attrs = _named(name, mac, None) + attr(IFLA_LINK, link)
    return _new_link(IFF_UP if up else 0, attrs, _link_info("vlan", attr_u16(IFLA_VLAN_ID, vid)))


def set_link(
    link: int | str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    master: int | None = None,
    alias: str | None = None,
    promisc: bool | None = None,
    name: str | None = None,
    group: int | None = None,
) -> Message:
    """Change what is given of a link.

    ``master`` 0 takes it off its bridge; ``alias`` has at most 255 bytes, "" removes it;
    ``name`` renames the link, which must then be given by index.
    """
    flags = change = 0
    for wanted, bit in ((up, IFF_UP), (promisc, IFF_PROMISC)):
        if wanted is not None:
            change |= bit
            flags |= bit if wanted else 0
    index, attrs = which(link)
    if name is not None:
        if attrs:
            raise ValueError(f"a link that is named ({link}) cannot be renamed, give its index")
        attrs += attr(IFLA_IFNAME, name)
    if mac is not None:
        attrs += attr(IFLA_ADDRESS, mac_bytes(mac))
    if mtu is not None:
        attrs += attr(IFLA_MTU, mtu)
    if master is not None:
        attrs += attr(IFLA_MASTER, master)
    if alias is not None:
        # without a final NUL, which would take one of the 255 bytes that are allowed
        attrs += attr(IFLA_IFALIAS, alias.encode("utf-8", "surrogateescape"))
    if group is not None:
        attrs += attr(IFLA_GROUP, group)
    body = IFINFO.pack(0, 0, index, flags, change) + attrs
    return Message(RTM_SETLINK, nlmsg.NLM_F_REQUEST, body)


def set_port(
    link: int | str, *, hairpin: bool | None = None, isolated: bool | None = None
) -> Message:
    """Change what a bridge does for its port ``link``.

    As slave data of an RTM_NEWLINK that creates nothing: unlike RTM_SETLINK for AF_BRIDGE, that
    takes the port by name too.
    """
    index, attrs = which(link)
    data = b""
    if hairpin is not None:
        data += attr_u8(IFLA_BRPORT_MODE, hairpin)
    if isolated is not None:
        data += attr_u8(IFLA_BRPORT_ISOLATED, isolated)
    attrs += nested(
        IFLA_LINKINFO,
        attr(IFLA_INFO_SLAVE_KIND, "bridge"),
        nested(IFLA_INFO_SLAVE_DATA, data),
    )
    body = IFINFO.pack(0, 0, index, 0, 0) + attrs
    return Message(RTM_NEWLINK, nlmsg.NLM_F_REQUEST, body)


def del_link(link: int | str) -> Message:
    """Delete a link; of a veth pair both ends go."""
    index, attrs = which(link)
    body = IFINFO.pack(0, 0, index, 0, 0) + attrs
    return Message(RTM_DELLINK, nlmsg.NLM_F_REQUEST, body)


def del_group(group: int) -> Message:
    """Delete every link of a group at once, in one wait of the kernel's.

    ENODEV when the group has none. Group 0 is where all links are that nobody has put elsewhere.
    """
    if group <= 0:
        raise ValueError(f"group {group} is not one to delete")
    body = IFINFO.pack(0, 0, 0, 0, 0) + attr(IFLA_GROUP, group)
    return Message(RTM_DELLINK, nlmsg.NLM_F_REQUEST, body)


def _named(name: str, mac: str | None, mtu: int | None) -> bytes:
    attrs = attr(IFLA_IFNAME, name)
    if mac is not None:
        attrs += attr(IFLA_ADDRESS, mac_bytes(mac))
    if mtu is not None:
        attrs += attr(IFLA_MTU, mtu)
    return attrs


def _link_info(kind: str, *data: bytes) -> bytes:
    attrs = attr(IFLA_INFO_KIND, kind)
    if data:
        attrs += nested(IFLA_INFO_DATA, *data)
    return nested(IFLA_LINKINFO, attrs)


def _new_link(flags: int, *attrs: bytes) -> Message:
    body = IFINFO.pack(0, 0, 0, flags, flags) + b"".join(attrs)
    return Message(RTM_NEWLINK, _CREATE, body)

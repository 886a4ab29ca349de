"""Requests as pyroute2's message classes read them, for all values, and values that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.cidr import Address, Prefix, parse_address
from netlink import nlmsg, rtnl

if TYPE_CHECKING:
    from netlink.nlmsg import Message

INDEXES = st.integers(1, 0x7FFFFFFF)
U32 = st.integers(1, 0xFFFFFFFF)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
MTUS = st.none() | st.integers(68, 65535)
ADDRESSES = st.builds(Address, st.just(4), st.integers(0, 2**32 - 1)) | st.builds(
    Address, st.just(6), st.integers(0, 2**128 - 1)
)
PREFIXES = ADDRESSES.flatmap(
    lambda address: st.builds(Prefix, st.just(address), st.integers(0, address.bits))
)
MAYBE = st.none() | st.booleans()


def _read(message: Message, as_class: type) -> Any:
    peer = as_class(nlmsg.pack(message, 1))
    peer.decode()
    return peer


def _attrs(peer: Any, *path: str) -> dict[str, Any]:
    for name in path:
        peer = peer.get_attr(name)
    return dict(peer["attrs"])


def _given(**attrs: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


@given(NAMES, MACS, MTUS, st.booleans(), st.booleans())
def test_new_bridge(name: str, mac: str, mtu: int | None, up: bool, filtering: bool) -> None:  # noqa: FBT001
    peer = _read(rtnl.new_bridge(name, mac=mac, mtu=mtu, up=up, vlan_filtering=filtering), ifinfmsg)
    attrs = _attrs(peer)
    info = dict(attrs.pop("IFLA_LINKINFO")["attrs"])
    assert attrs == _given(IFLA_IFNAME=name, IFLA_ADDRESS=mac, IFLA_MTU=mtu)
    assert info.pop("IFLA_INFO_KIND") == "bridge"
    assert (peer["flags"], peer["change"]) == ((1, 1) if up else (0, 0))
    if filtering:
        assert dict(info.pop("IFLA_INFO_DATA")["attrs"]) == {"IFLA_BR_VLAN_FILTERING": 1}
    assert not info


@given(NAMES, MACS, MTUS, st.none() | INDEXES, NAMES, MACS, st.none() | st.integers(0, 1 << 20))
def test_new_veth(  # noqa: PLR0917 hypothesis gives them in order
    name: str,
    mac: str,
    mtu: int | None,
    master: int | None,
    peer_name: str,
    peer_mac: str,
    netns_fd: int | None,
) -> None:
    message = rtnl.new_veth(
        name,
        mac=mac,
        mtu=mtu,
        master=master,
        peer_name=peer_name,
        peer_mac=peer_mac,
        peer_netns_fd=netns_fd,
    )
    peer = _read(message, ifinfmsg)
    attrs = _attrs(peer)
    assert attrs.pop("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "veth"
    assert attrs == _given(IFLA_IFNAME=name, IFLA_ADDRESS=mac, IFLA_MTU=mtu, IFLA_MASTER=master)
    other = peer.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert (other["flags"], other["change"], other["index"]) == (0, 0, 0)
    assert dict(other["attrs"]) == _given(
        IFLA_IFNAME=peer_name, IFLA_ADDRESS=peer_mac, IFLA_MTU=mtu, IFLA_NET_NS_FD=netns_fd
    )


@given(NAMES, INDEXES, st.integers(0, 0xFFFF), st.none() | MACS)
def test_new_vlan(name: str, link: int, vid: int, mac: str | None) -> None:
    peer = _read(rtnl.new_vlan(name, link=link, vid=vid, mac=mac), ifinfmsg)
    info = _attrs(peer, "IFLA_LINKINFO")
    assert info["IFLA_INFO_KIND"] == "vlan"
    assert dict(info["IFLA_INFO_DATA"]["attrs"]) == {"IFLA_VLAN_ID": vid}
    assert _attrs(peer)["IFLA_LINK"] == link
    assert _attrs(peer).get("IFLA_ADDRESS") == mac


@given(INDEXES, MAYBE, MTUS, st.none() | MACS, st.none() | INDEXES, MAYBE, st.none() | NAMES, U32)
def test_set_link(  # noqa: PLR0917 hypothesis gives them in order
    index: int,
    up: bool | None,  # noqa: FBT001
    mtu: int | None,
    mac: str | None,
    master: int | None,
    promisc: bool | None,  # noqa: FBT001
    name: str | None,
    group: int,
) -> None:
    message = rtnl.set_link(
        index, up=up, mtu=mtu, mac=mac, master=master, promisc=promisc, name=name, group=group
    )
    peer = _read(message, ifinfmsg)
    assert peer["index"] == index
    assert peer["flags"] == (1 if up else 0) | (0x100 if promisc else 0)
    assert peer["change"] == (up is not None) | (0x100 if promisc is not None else 0)
    assert _attrs(peer) == _given(
        IFLA_MTU=mtu, IFLA_ADDRESS=mac, IFLA_MASTER=master, IFLA_IFNAME=name, IFLA_GROUP=group
    )


@given(NAMES, st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=255))
def test_a_link_by_name_and_its_alias(name: str, alias: str) -> None:
    attrs = nlmsg.parse_attrs(rtnl.set_link(name, alias=alias).body, 16)
    assert attrs == {3: name.encode() + b"\0", 20: alias.encode()}
    for request in (rtnl.del_link(name), rtnl.get_link(name)):
        peer = _read(request, ifinfmsg)
        assert (peer["index"], peer.get_attr("IFLA_IFNAME")) == (0, name)


@given(INDEXES | NAMES, MAYBE, MAYBE)
def test_set_port(link: int | str, hairpin: bool | None, isolated: bool | None) -> None:  # noqa: FBT001
    info = _attrs(
        _read(rtnl.set_port(link, hairpin=hairpin, isolated=isolated), ifinfmsg), "IFLA_LINKINFO"
    )
    assert info["IFLA_INFO_SLAVE_KIND"] == "bridge"
    assert dict(info["IFLA_INFO_SLAVE_DATA"]["attrs"]) == _given(
        IFLA_BRPORT_MODE=hairpin, IFLA_BRPORT_ISOLATED=isolated
    )


@given(INDEXES, PREFIXES, st.booleans())
def test_addresses(index: int, prefix: Prefix, nodad: bool) -> None:  # noqa: FBT001
    peer = _read(rtnl.new_address(index, prefix, nodad=nodad), ifaddrmsg)
    address = str(parse_address(str(prefix.address)))
    attrs = _attrs(peer)
    assert peer["index"] == index
    assert peer["prefixlen"] == prefix.length
    assert peer["flags"] == (2 if nodad else 0)
    assert parse_address(attrs.pop("IFA_LOCAL")) == parse_address(address)
    assert parse_address(attrs.pop("IFA_ADDRESS")) == parse_address(address)
    assert ("IFA_BROADCAST" in attrs) == (prefix.family == 4 and prefix.length < 31)
    assert attrs.get("IFA_BROADCAST", str(prefix.last)) == str(prefix.last)


@given(INDEXES, PREFIXES, st.data())
def test_routes(index: int, dst: Prefix, data: st.DataObject) -> None:
    gw = data.draw(st.none() | ADDRESSES.filter(lambda a: a.family == dst.family))
    mtu, advmss, priority = (data.draw(st.none() | U32) for _ in range(3))
    table = data.draw(st.none() | U32)
    onlink = data.draw(st.booleans())
    message = rtnl.new_route(
        index,
        dst,
        gw=gw,
        mtu=mtu,
        advmss=advmss,
        priority=priority,
        table=table,
        onlink=onlink,
    )
    peer = _read(message, rtmsg)
    attrs = _attrs(peer)
    assert peer["dst_len"] == dst.length
    assert (peer["proto"], peer["type"], peer["flags"]) == (3, 1, 4 if onlink else 0)
    assert peer["scope"] == (253 if gw is None and dst.family == 4 else 0)
    if dst.length:
        assert parse_address(attrs.pop("RTA_DST")).packed == dst.first.packed
    if gw is not None:
        assert Address.from_packed(parse_address(attrs.pop("RTA_GATEWAY")).packed) == _plain(gw)
    metrics = dict(attrs.pop("RTA_METRICS", {"attrs": []})["attrs"])
    assert metrics == _given(RTAX_MTU=mtu, RTAX_ADVMSS=advmss)
    assert attrs.pop("RTA_TABLE", peer["table"]) == (254 if table is None else table)
    assert attrs == _given(RTA_OIF=index, RTA_PRIORITY=priority)


def _plain(address: Address) -> Address:
    return parse_address(str(address))


@given(INDEXES, ADDRESSES, MACS, st.sampled_from([2, 4, 0x80]))
def test_neighbours(index: int, address: Address, mac: str, state: int) -> None:
    peer = _read(rtnl.replace_neighbour(index, address, mac, state=state), ndmsg)
    assert (peer["ifindex"], peer["state"]) == (index, state)
    assert parse_address(peer.get_attr("NDA_DST")) == _plain(address)
    assert peer.get_attr("NDA_LLADDR") == mac


@given(st.integers(0, 1 << 20))
def test_namespace_ids(fd: int) -> None:
    assert _read(rtnl.get_nsid(fd), nsidmsg).get_attr("NETNSA_FD") == fd


@pytest.mark.parametrize("vids", [(0, None), (4095, None), (5, 4), (1, 4095), (-1, 3)])
def test_vlans_that_do_not_exist(vids: tuple[int, int | None]) -> None:
    with pytest.raises(ValueError, match="no VLANs from"):
        rtnl.add_port_vlan(3, vids[0], vid_end=vids[1])


@pytest.mark.parametrize("mac", ["", "0e:00:00:00:00", "0e:00:00:00:00:0", "zz:00:00:00:00:01"])
def test_what_is_no_mac(mac: str) -> None:
    with pytest.raises(ValueError, match=r"MAC|hexadecimal"):
        rtnl.new_bridge("cni0", mac=mac)


def test_a_link_is_renamed_by_index_only() -> None:
    with pytest.raises(ValueError, match="cannot be renamed"):
        rtnl.set_link("eth0", name="eth1")

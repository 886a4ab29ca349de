"""Requests against pyroute2, an independent implementation, in both of its voices.

Its message classes decode what we encode, for all values; its high-level calls encode the same
wishes as we do, and the two are compared attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2 import IPBatch
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.cidr import Address, Prefix, parse_address, parse_prefix
from cni_flannel.kernel import nlmsg, rtnl
from cni_flannel.kernel.nlmsg import Message

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


def _tree(peer: Any) -> Any:
    """Turn a decoded message into plain values: attributes as sorted (name, value) pairs."""
    if isinstance(peer, dict) and "attrs" in peer:
        fields = {
            key: value
            for key, value in peer.items()
            if key not in {"attrs", "header", "__align", "state", "event"}
        }
        return fields, sorted((name, _tree(value)) for name, value in peer["attrs"])
    return dict(peer) if isinstance(peer, dict) else peer


def _attrs(peer: Any, *path: str) -> dict[str, Any]:
    for name in path:
        peer = peer.get_attr(name)
    return dict(peer["attrs"])


def _given(**attrs: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


# ------------------------------------------------------------------- pyroute2 decodes ours


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
def test_new_veth(
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
def test_set_link(
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


# --------------------------------------------------- pyroute2 encodes the same wish as we do

MAC, OTHER = "0e:00:00:00:00:01", "0e:00:00:00:00:02"
NET, NET6 = parse_prefix("10.1.2.3/24"), parse_prefix("fd00::3/64")
GW, GW6 = parse_address("10.1.2.1"), parse_address("fd00::1")
PEER = {"ifname": "eth0", "address": OTHER, "mtu": 1450, "net_ns_fd": 5}


@pytest.fixture
def batch() -> Iterator[IPBatch]:
    with IPBatch() as opened:
        yield opened


WISHES = [
    pytest.param(
        rtnl.new_bridge("cni0", mac=MAC, mtu=1450),
        lambda b: b.link("add", ifname="cni0", kind="bridge", address=MAC, mtu=1450, state="up"),
        ifinfmsg,
        id="bridge",
    ),
    pytest.param(
        rtnl.new_bridge("cni0", mac=MAC, up=False, vlan_filtering=True),
        lambda b: b.link("add", ifname="cni0", kind="bridge", address=MAC, br_vlan_filtering=1),
        ifinfmsg,
        id="bridge that filters VLANs",
    ),
    pytest.param(
        rtnl.new_veth(
            "veth1",
            mac=MAC,
            mtu=1450,
            master=7,
            peer_name="eth0",
            peer_mac=OTHER,
            peer_netns_fd=5,
        ),
        lambda b: b.link(
            "add",
            ifname="veth1",
            kind="veth",
            address=MAC,
            mtu=1450,
            master=7,
            state="up",
            peer=PEER,
        ),
        ifinfmsg,
        id="veth",
    ),
    pytest.param(
        rtnl.new_vlan("cni0.5", link=3, vid=5, up=False),
        lambda b: b.link("add", ifname="cni0.5", kind="vlan", link=3, vlan_id=5),
        ifinfmsg,
        id="vlan",
    ),
    pytest.param(
        rtnl.del_link(3), lambda b: b.link("del", index=3), ifinfmsg, id="delete a link"
    ),
    pytest.param(
        rtnl.new_address(3, NET),
        lambda b: b.addr("add", index=3, address="10.1.2.3", prefixlen=24, broadcast="10.1.2.255"),
        ifaddrmsg,
        id="IPv4 address",
    ),
    pytest.param(
        rtnl.new_address(3, NET6),
        lambda b: b.addr("add", index=3, address="fd00::3", local="fd00::3", prefixlen=64),
        ifaddrmsg,
        id="IPv6 address",
    ),
    pytest.param(
        rtnl.new_route(3, parse_prefix("0.0.0.0/0"), gw=GW, append=False),
        lambda b: b.route("add", dst="default", gateway=str(GW), oif=3),
        rtmsg,
        id="default route",
    ),
    pytest.param(
        rtnl.new_route(3, NET, gw=GW, mtu=1400, advmss=1300, priority=7, table=1000),
        lambda b: b.route(
            "append",
            dst="10.1.2.0/24",
            gateway=str(GW),
            oif=3,
            priority=7,
            table=1000,
            metrics={"mtu": 1400, "advmss": 1300},
        ),
        rtmsg,
        id="IPv4 route with everything",
    ),
    pytest.param(
        rtnl.new_route(3, NET6, gw=GW6, append=False),
        lambda b: b.route("add", dst="fd00::/64", gateway=str(GW6), oif=3),
        rtmsg,
        id="IPv6 route",
    ),
    pytest.param(
        rtnl.replace_neighbour(3, GW, MAC, state=rtnl.NUD_PERMANENT),
        lambda b: b.neigh("replace", dst=str(GW), lladdr=MAC, ifindex=3, state="permanent"),
        ndmsg,
        id="neighbour",
    ),
    pytest.param(
        rtnl.del_neighbour(3, GW6),
        lambda b: b.neigh("del", dst=str(GW6), ifindex=3),
        ndmsg,
        id="delete a neighbour",
    ),
    pytest.param(
        rtnl.add_port_vlan(3, 10, pvid=True, untagged=True),
        lambda b: b.vlan_filter(
            "add", index=3, vlan_info={"vid": 10, "flags": 6}, vlan_flags="master"
        ),
        ifinfmsg,
        id="port VLAN",
    ),
    pytest.param(
        rtnl.add_port_vlan(3, 10, vid_end=20, self_=True),
        lambda b: b.vlan_filter("add", index=3, vlan_info={"vid": "10-20"}, vlan_flags="self"),
        ifinfmsg,
        id="range of VLANs on the bridge itself",
    ),
    pytest.param(
        rtnl.del_port_vlan(3, 1),
        lambda b: b.vlan_filter("del", index=3, vlan_info={"vid": 1}, vlan_flags="master"),
        ifinfmsg,
        id="delete a port VLAN",
    ),
]


@pytest.mark.parametrize(("ours", "wish", "as_class"), WISHES)
def test_pyroute2_says_the_same(
    batch: IPBatch, ours: Message, wish: Callable[[IPBatch], object], as_class: type
) -> None:
    wish(batch)
    theirs = as_class(bytes(batch.batch))
    theirs.decode()
    assert _tree(_read(ours, as_class)) == _tree(theirs)
    assert theirs["header"]["type"] == ours.type
    assert theirs["header"]["flags"] == ours.flags | nlmsg.NLM_F_ACK


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

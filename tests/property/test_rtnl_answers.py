"""Answers of the kernel, written by pyroute2, as our decoders read them; and then damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.cidr import parse_address, parse_prefix
from netlink import nlmsg, rtnl
from netlink.link import Link
from netlink.nlmsg import Message

INDEXES = st.integers(1, 0x7FFFFFFF)
U32 = st.integers(1, 0xFFFFFFFF)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str)


def _written(as_class: type, kind: int, attrs: list[tuple[str, Any]], **fields: Any) -> Message:
    peer = as_class()
    peer["header"]["type"] = kind
    peer["attrs"] = attrs
    for name, value in fields.items():
        peer[name] = value
    peer.encode()
    (message,) = nlmsg.unpack(bytes(peer.data))
    return message


def _link(kind: str, *, index: int = 4, **attrs: Any) -> Message:
    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if kind == "bridge":
        info.append(("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]}))
    if "IFLA_MASTER" in attrs:
        port = [("IFLA_BRPORT_STATE", 3), ("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0)]
        info.append(("IFLA_INFO_SLAVE_KIND", "bridge"))
        info.append(("IFLA_INFO_SLAVE_DATA", {"attrs": port}))
    wanted = [*attrs.items(), ("IFLA_LINKINFO", {"attrs": info})]
    return _written(ifinfmsg, 16, wanted, index=index, flags=0x1043, family=0)


@given(
    st.sampled_from(["bridge", "veth", "vlan"]),
    INDEXES,
    NAMES,
    MACS,
    U32,
    st.none() | INDEXES,
    st.none() | INDEXES,
    st.text("abc:-./é", max_size=100),
)
def test_links(  # noqa: PLR0917 hypothesis gives them in order
    kind: str,
    index: int,
    name: str,
    mac: str,
    mtu: int,
    master: int | None,
    peer: int | None,
    alias: str,
) -> None:
    attrs: dict[str, Any] = {"IFLA_IFNAME": name, "IFLA_ADDRESS": mac, "IFLA_MTU": mtu}
    attrs |= {"IFLA_OPERSTATE": "UP", "IFLA_IFALIAS": alias, "IFLA_GROUP": 5}
    if master is not None:
        attrs["IFLA_MASTER"] = master
    if peer is not None:
        attrs |= {"IFLA_LINK": peer, "IFLA_LINK_NETNSID": 3}
    link = Link.decode(_link(kind, index=index, **attrs))
    assert (link.kind, link.index, link.name, link.mac, link.mtu) == (kind, index, name, mac, mtu)
    assert (link.alias, link.group, link.operstate) == (alias, 5, rtnl.IF_OPER_UP)
    assert link.is_up
    assert link.vlan_filtering == (kind == "bridge")
    assert (link.link, link.link_netnsid) == ((0, None) if peer is None else (peer, 3))
    assert link.master == (master or 0)
    if master is None:
        assert link.port is None
    else:
        assert link.port is not None
        assert (link.port.state, link.port.hairpin, link.port.isolated) == (3, True, False)


def test_two_ends_of_a_pair() -> None:
    one = Link.decode(_link("veth", index=4, IFLA_LINK=9))
    other = Link.decode(_link("veth", index=9, IFLA_LINK=4))
    stranger = Link.decode(_link("veth", index=9, IFLA_LINK=5))
    vlan = Link.decode(_link("vlan", index=9, IFLA_LINK=4))
    assert rtnl.paired(one, other)
    assert not rtnl.paired(one, stranger)
    assert not rtnl.paired(one, vlan)


@given(IPV4 | IPV6, st.integers(0, 32), INDEXES, st.sampled_from([0x80, 0xC0, 0x282]))
def test_addresses(text: str, length: int, index: int, flags: int) -> None:
    family = 10 if ":" in text else 2
    attrs: list[tuple[str, Any]] = [("IFA_ADDRESS", text), ("IFA_FLAGS", flags)]
    if family == 2:
        attrs.append(("IFA_LOCAL", text))
    message = _written(
        ifaddrmsg,
        20,
        attrs,
        family=family,
        prefixlen=length,
        index=index,
        flags=flags & 0xFF,
        scope=0,
    )
    address = rtnl.InterfaceAddress.decode(message)
    # as bytes: in text, an IPv4-mapped address would be the IPv4 address
    assert address.prefix.family == (6 if family == 10 else 4)
    assert parse_address(str(address.prefix.address)) == parse_address(text)
    assert (address.prefix.length, address.index, address.flags) == (length, index, flags)


@given(IPV4, st.integers(1, 32), IPV4, INDEXES, U32, U32)
def test_routes(  # noqa: PLR0917 hypothesis gives them in order
    dst: str, length: int, gw: str, index: int, table: int, priority: int
) -> None:
    attrs = [
        ("RTA_DST", dst),
        ("RTA_GATEWAY", gw),
        ("RTA_OIF", index),
        ("RTA_TABLE", table),
        ("RTA_PRIORITY", priority),
        ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1300)]}),
    ]
    message = _written(rtmsg, 24, attrs, family=2, dst_len=length, proto=3, type=1, scope=0)
    route = rtnl.Route.decode(message)
    assert (str(route.dst), str(route.gw)) == (f"{dst}/{length}", gw)
    assert (route.index, route.table, route.priority) == (index, table, priority)
    assert (route.mtu, route.advmss, route.protocol, route.type) == (1400, 1300, 3, 1)


def test_a_default_route_has_no_destination_and_maybe_several_hops() -> None:
    hops = [
        {"hops": 0, "oif": 7, "attrs": [("RTA_GATEWAY", "10.0.0.1")]},
        {"hops": 0, "oif": 8, "attrs": [("RTA_GATEWAY", "10.0.0.2")]},
    ]
    message = _written(rtmsg, 24, [("RTA_MULTIPATH", hops)], family=2, dst_len=0, table=254)
    route = rtnl.Route.decode(message)
    assert (str(route.dst), str(route.gw), route.index) == ("0.0.0.0/0", "10.0.0.1", 7)
    message = _written(rtmsg, 24, [("RTA_OIF", 3)], family=10, dst_len=0, table=254)
    route = rtnl.Route.decode(message)
    assert (str(route.dst), route.gw, route.index, route.table) == ("::/0", None, 3, 254)


@given(IPV4 | IPV6, MACS, INDEXES)
def test_neighbours(text: str, mac: str, index: int) -> None:
    family = 10 if ":" in text else 2
    attrs = [("NDA_DST", text), ("NDA_LLADDR", mac)]
    message = _written(ndmsg, 28, attrs, family=family, ifindex=index, state=2)
    entry = rtnl.Neighbour.decode(message)
    assert parse_address(str(entry.address)) == parse_address(text)
    assert (entry.mac, entry.index, entry.state) == (mac, index, rtnl.NUD_REACHABLE)


@pytest.mark.parametrize(("said", "nsid"), [(0, 0), (7, 7), (0xFFFFFFFF, None)])
def test_namespace_ids(said: int, nsid: int | None) -> None:
    message = _written(nsidmsg, 88, [("NETNSA_NSID", said)], rtgen_family=0)
    assert rtnl.decode_nsid(message) == nsid


def test_port_vlans() -> None:
    infos = [
        ("IFLA_BRIDGE_VLAN_INFO", {"flags": 6, "vid": 1}),
        ("IFLA_BRIDGE_VLAN_INFO", {"flags": 8, "vid": 10}),
        ("IFLA_BRIDGE_VLAN_INFO", {"flags": 16, "vid": 20}),
    ]
    message = _written(ifinfmsg, 16, [("IFLA_AF_SPEC", {"attrs": infos})], family=7, index=3)
    vlans = rtnl.PortVLAN.decode(message)
    assert [(v.index, v.vid, v.vid_end, v.pvid, v.untagged) for v in vlans] == [
        (3, 1, 1, True, True),
        (3, 10, 20, False, False),
    ]


REAL = (
    (rtnl.Link.decode, _link("veth", IFLA_IFNAME="eth0", IFLA_MASTER=3, IFLA_LINK=4)),
    (rtnl.Link.decode, _link("bridge", IFLA_IFNAME="cni0", IFLA_IFALIAS="x")),
    (rtnl.InterfaceAddress.decode, rtnl.new_address(3, parse_prefix("fd00::3/64"))),
    (
        rtnl.Route.decode,
        rtnl.new_route(3, parse_prefix("10.0.0.0/8"), gw=parse_address("10.0.0.1"), mtu=1400),
    ),
    (
        rtnl.Neighbour.decode,
        rtnl.replace_neighbour(3, parse_address("10.0.0.1"), "0e:00:00:00:00:01"),
    ),
    (
        lambda m: rtnl.PortVLAN.decode(Message(16, m.flags, m.body)),
        rtnl.add_port_vlan(3, 10, vid_end=20),
    ),
)


@given(st.data(), st.sampled_from(REAL), st.lists(st.integers(0, 255), min_size=1, max_size=4))
def test_damaged_answers_give_a_value_or_a_value_error(
    data: st.DataObject, real: Any, changes: list[int]
) -> None:
    decode, message = real
    body = bytearray(message.body)
    for value in changes:
        body[data.draw(st.integers(0, len(body) - 1))] = value
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        try:
            decode(Message(message.type, message.flags, damaged))
        except ValueError:
            pass


@pytest.mark.parametrize(
    "decode",
    [
        rtnl.Link.decode,
        rtnl.InterfaceAddress.decode,
        rtnl.Route.decode,
        rtnl.Neighbour.decode,
        rtnl.decode_nsid,
        rtnl.PortVLAN.decode,
    ],
)
def test_a_message_of_another_kind(decode: Any) -> None:
    with pytest.raises(ValueError, match="is no"):
        decode(Message(99, 0, bytes(64)))


def test_the_vocabulary_has_no_other_words() -> None:
    with pytest.raises(AttributeError, match="no attribute 'new_tunnel'"):
        rtnl.new_tunnel  # type: ignore[attr-defined]  # noqa: B018
    for name in rtnl.__all__:
        assert getattr(rtnl, name) is not None

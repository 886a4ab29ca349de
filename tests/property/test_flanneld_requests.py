"""The daemon's messages as pyroute2's classes read them, and read back by the daemon's decoders."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from flanneld.desired import Vxlan
from flanneld.kernel import entries, vxlan
from netlink import nlmsg

if TYPE_CHECKING:
    from flanneld.desired import AnyAddress, AnyInterface, AnyNetwork
    from netlink.nlmsg import Message

AF = {4: 2, 6: 10}
INDEXES = st.integers(1, 0x7FFFFFFF)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ADDRESSES: st.SearchStrategy[AnyAddress] = st.ip_addresses()
SPECIFIED = ADDRESSES.filter(lambda address: not address.is_unspecified)
NETWORKS: st.SearchStrategy[AnyNetwork] = ADDRESSES.flatmap(
    lambda address: st.integers(1, address.max_prefixlen).map(
        lambda length: ip_network((address, length), strict=False)
    )
)
INTERFACES: st.SearchStrategy[AnyInterface] = SPECIFIED.flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ip_interface((address, length))
    )
)
HOPS = st.builds(entries.Hop, INDEXES, st.none() | SPECIFIED, st.booleans(), st.booleans())
DEVICES = st.builds(
    Vxlan,
    name=NAMES,
    vni=st.integers(0, 0xFFFFFF),
    port=st.integers(0, 0xFFFF),
    underlay=NAMES,
    local=SPECIFIED,
    mac=MACS,
    mtu=st.integers(68, 65535),
    gbp=st.booleans(),
    learning=st.booleans(),
)


def _read(message: Message, as_class: type) -> Any:
    peer = as_class(nlmsg.pack(message, 1))
    peer.decode()
    return peer


def _address(told: str) -> AnyAddress:
    return IPv6Address(told) if ":" in told else IPv4Address(told)


@given(DEVICES, INDEXES)
def test_new_vxlan(device: Vxlan, underlay: int) -> None:
    attrs = dict(_read(vxlan.new_vxlan(device, underlay), ifinfmsg)["attrs"])
    info = dict(attrs.pop("IFLA_LINKINFO")["attrs"])
    assert attrs == {
        "IFLA_IFNAME": device.name,
        "IFLA_ADDRESS": device.mac,
        "IFLA_MTU": device.mtu,
    }
    assert info.pop("IFLA_INFO_KIND") == "vxlan"
    data = dict(info.pop("IFLA_INFO_DATA")["attrs"])
    local = "IFLA_VXLAN_LOCAL" if device.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    assert _address(data.pop(local)) == device.local
    assert ("IFLA_VXLAN_GBP" in data) == device.gbp
    data.pop("IFLA_VXLAN_GBP", None)
    assert data.pop("IFLA_VXLAN_PORT", 0) == device.port
    assert data == {
        "IFLA_VXLAN_ID": device.vni,
        "IFLA_VXLAN_LINK": underlay,
        "IFLA_VXLAN_LEARNING": device.learning,
    }


@given(DEVICES, INDEXES)
def test_a_device_is_like_what_made_it(device: Vxlan, underlay: int) -> None:
    found = vxlan.decode(vxlan.new_vxlan(device, underlay))
    assert found is not None
    assert found.is_like(device, underlay)
    assert not found.is_like(device, underlay ^ 1)


@given(INDEXES, INTERFACES)
def test_new_address(index: int, interface: AnyInterface) -> None:
    message = entries.new_address(index, interface)
    peer = _read(message, ifaddrmsg)
    assert (peer["family"], peer["prefixlen"]) == (
        AF[interface.version],
        interface.network.prefixlen,
    )
    assert (peer["index"], peer["scope"]) == (index, 0)
    assert peer["flags"] == (2 if interface.version == 6 else 0)  # IFA_F_NODAD
    assert _address(peer.get_attr("IFA_LOCAL")) == interface.ip
    assert _address(peer.get_attr("IFA_ADDRESS")) == interface.ip
    assert entries.decode_address(message) == (index, interface)


@given(INDEXES, ADDRESSES, MACS)
def test_new_neighbour(index: int, address: AnyAddress, mac: str) -> None:
    message = entries.new_neighbour(index, address, mac)
    peer = _read(message, ndmsg)
    assert (peer["family"], peer["ifindex"], peer["state"], peer["ndm_type"]) == (
        AF[address.version],
        index,
        0x80,
        1,
    )
    assert _address(peer.get_attr("NDA_DST")) == address
    assert peer.get_attr("NDA_LLADDR") == mac
    assert entries.decode_neighbour(message) == (index, address, mac)


@given(INDEXES, MACS, SPECIFIED)
def test_new_forward(index: int, mac: str, remote: AnyAddress) -> None:
    message = entries.new_forward(index, mac, remote)
    peer = _read(message, ndmsg)
    assert (peer["family"], peer["ifindex"], peer["state"], peer["flags"]) == (7, index, 0x80, 2)
    assert peer.get_attr("NDA_LLADDR") == mac
    assert entries.decode_forward(message) == (index, mac, remote)


@given(NETWORKS, HOPS)
def test_new_route(destination: AnyNetwork, hop: entries.Hop) -> None:
    if hop.gateway is not None and hop.gateway.version != destination.version:
        hop = hop._replace(gateway=None)
    message = entries.new_route(destination, hop, nlmsg.NLM_F_EXCL)
    peer = _read(message, rtmsg)
    assert (peer["family"], peer["dst_len"]) == (AF[destination.version], destination.prefixlen)
    assert (peer["table"], peer["proto"], peer["type"]) == (254, 244, 1)
    assert peer["scope"] == (253 if hop.scope_link else 0)
    assert peer["flags"] == (4 if hop.onlink else 0)
    assert _address(peer.get_attr("RTA_DST")) == destination.network_address
    assert peer.get_attr("RTA_OIF") == hop.ifindex
    told = peer.get_attr("RTA_GATEWAY")
    assert (None if told is None else _address(told)) == hop.gateway
    found = entries.decode_route(message)
    assert found is not None
    assert found[:5] == (destination, 0, 244, hop, False)


@given(st.binary(max_size=80), st.sampled_from([16, 20, 24, 28]))
def test_any_bytes(body: bytes, kind: int) -> None:
    """A decoder gives a value, None, or ValueError (struct.error is none), for whatever comes."""
    message = nlmsg.Message(kind, 0, body)
    for decode in (
        vxlan.decode,
        entries.decode_address,
        entries.decode_neighbour,
        entries.decode_forward,
        entries.decode_route,
    ):
        try:
            decode(message)
        except ValueError:
            continue

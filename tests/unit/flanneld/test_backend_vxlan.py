"""The vxlan backend: what it publishes, and what it plans for each peer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

import pytest

from flanneld.backend.registry import backend_for
from flanneld.config import ConfigError
from flanneld.desired import Address, Desired, Forward, Neighbour, Route
from flanneld.subnet import keys
from tests.unit.flanneld.cluster import DEVICE, IDENTITY, conf, external, lease

DEVICE6 = replace(
    DEVICE,
    name="flannel-v6.1",
    local=IPv6Address("fd09::1"),
    mac="02:00:00:06:00:01",
    mtu=1430,
    alias="flanneld fd44::/48",
)
TUNNEL = (
    Neighbour("flannel.1", ip_address("10.244.2.0"), "02:00:00:04:00:02"),
    Forward("flannel.1", "02:00:00:04:00:02", ip_address("192.168.9.2")),
    Route("flannel.1", ip_network("10.244.2.0/24"), ip_address("10.244.2.0"), onlink=True),
)
TUNNEL6 = (
    Neighbour("flannel-v6.1", ip_address("fd44:0:0:2::"), "02:00:00:06:00:02"),
    Forward("flannel-v6.1", "02:00:00:06:00:02", ip_address("fd09::2")),
    Route("flannel-v6.1", ip_network("fd44:0:0:2::/64"), ip_address("fd44:0:0:2::"), onlink=True),
)
DIRECT = Route("eth0", ip_network("10.244.2.0/24"), ip_address("192.168.9.2"))
NETWORK = ip_network("10.244.0.0/16")


def plan(
    *peers: Any, families: str = "4", outer: dict[str, Any] | None = None, **backend: Any
) -> Desired:
    made = backend_for(conf(families=families, **backend))
    own = lease(1, families=families)
    return made.plan(own, peers, external(families=families, **(outer or {})), IDENTITY)


def test_one_family() -> None:
    neighbour, forward, route = TUNNEL
    assert plan(lease(2)) == Desired(
        devices=frozenset({DEVICE}),
        addresses=frozenset({Address("flannel.1", ip_interface("10.244.1.0/32"))}),
        neighbours=frozenset({neighbour}),
        forwards=frozenset({forward}),
        routes=frozenset({route}),
        networks=frozenset({NETWORK}),
    )


def test_two_families_have_a_device_each() -> None:
    planned = plan(lease(2, families="46"), families="46")
    assert planned.devices == {DEVICE, DEVICE6}
    assert planned.addresses == {
        Address("flannel.1", ip_interface("10.244.1.0/32")),
        Address("flannel-v6.1", ip_interface("fd44:0:0:1::/128")),
    }
    assert planned.neighbours == {TUNNEL[0], TUNNEL6[0]}
    assert planned.forwards == {TUNNEL[1], TUNNEL6[1]}
    assert planned.routes == {TUNNEL[2], TUNNEL6[2]}
    assert not planned.problems


def test_ipv6_alone() -> None:
    planned = plan(lease(2, families="6"), families="6")
    assert planned.devices == {DEVICE6}
    assert planned.routes == {TUNNEL6[2]}


def test_a_peer_of_one_family_in_a_network_of_two() -> None:
    planned = plan(lease(2, families="4"), families="46")
    assert planned.routes == {TUNNEL[2]}
    assert not planned.problems


@pytest.mark.parametrize(
    ("keys_", "changed"),
    [
        ({"VNI": 7}, {"name": "flannel.7", "vni": 7}),
        ({"vni": 7}, {"name": "flannel.7", "vni": 7}),
        ({"Port": 4789}, {"port": 4789}),
        ({"MTU": 9000}, {"mtu": 8950}),
        ({"GBP": True}, {"gbp": True}),
        ({"Learning": True}, {"learning": True}),
        ({"TxChecksumOffload": False}, {"tx_checksum_offload": False}),
    ],
)
def test_keys(keys_: dict[str, Any], changed: dict[str, Any]) -> None:
    (device,) = plan(**keys_).devices
    assert device == replace(DEVICE, **changed)


@pytest.mark.parametrize(
    ("keys_", "text"),
    [
        ({"VNI": 1 << 24}, "VNI must be a whole number from 0 to 16777215, not 16777216"),
        ({"VNI": "1"}, "VNI must be a whole number"),
        ({"Port": -1}, "Port must be a whole number"),
        ({"GBP": 1}, "GBP must be true or false"),
        ({"VNI": 10000000}, "device name flannel.10000000, of more than 15 characters"),
    ],
)
def test_wrong_keys(keys_: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        backend_for(conf(**keys_))


def test_behind_nat_the_tunnel_starts_at_the_own_address() -> None:
    outside = IPv4Address("203.0.113.1")
    planned = plan(lease(2), outer={"public_ip": outside})
    assert planned.devices == {DEVICE}
    told = backend_for(conf()).attributes(external(families="4", public_ip=outside), IDENTITY)
    assert told.public_ip == outside


@pytest.mark.parametrize(
    ("families", "text"),
    [
        (
            "4",
            (
                '{"PublicIP":"192.168.9.1","PublicIPv6":null,"BackendType":"vxlan",'
                '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:04:00:01"}}'
            ),
        ),
        (
            "46",
            (
                '{"PublicIP":"192.168.9.1","PublicIPv6":"fd09::1","BackendType":"vxlan",'
                '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:04:00:01"},'
                '"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:06:00:01"}}'
            ),
        ),
    ],
)
def test_published_as_by_go(families: str, text: str) -> None:
    told = backend_for(conf(families=families)).attributes(external(families=families), IDENTITY)
    assert keys.value(told).decode() == text


@pytest.mark.parametrize(
    ("families", "outer", "backend", "mtu"),
    [
        ("4", {}, {}, 1450),
        ("6", {}, {}, 1430),
        ("46", {}, {}, 1430),
        ("4", {"mtu": 9001}, {}, 8951),
        ("4", {"mtu": 9001}, {"MTU": 1500}, 1450),
    ],
)
def test_mtu(families: str, outer: dict[str, Any], backend: dict[str, Any], mtu: int) -> None:
    made = backend_for(conf(families=families, **backend))
    assert made.mtu(external(families=families, **outer)) == mtu


def test_mtu_too_small_for_ipv6() -> None:
    made = backend_for(conf(families="6"))
    with pytest.raises(ConfigError, match=r"MTU of 1349 is 70 bytes too small.*IPv6 needs 1280"):
        made.mtu(external(mtu=1349))


# --------------------------------------------------------------------------------------- types


def test_a_peer_that_publishes_host_gw_gets_a_route() -> None:
    planned = plan(lease(2, "host-gw"), lease(3))
    assert DIRECT in planned.routes
    assert {route.destination for route in planned.routes if route.link == "flannel.1"} == {
        ip_network("10.244.3.0/24")
    }


def test_direct_routing_on_the_link_alone() -> None:
    far = lease(3, public_ip=IPv4Address("172.16.0.3"))
    planned = plan(lease(2), far, DirectRouting=True)
    assert DIRECT in planned.routes
    assert {entry.remote for entry in planned.forwards} == {IPv4Address("172.16.0.3")}


PROBLEMS = [
    (
        "off link",
        lease(2, "host-gw", public_ip=IPv4Address("172.16.0.2")),
        (
            "10.244.2.0/24 of 172.16.0.2: it cannot be the gateway: it is not on the link of eth0, "
            "which reaches 192.168.9.0/24"
        ),
    ),
    ("udp or alloc", lease(2, ""), "10.244.2.0/24 of 192.168.9.2: it publishes no backend type"),
    (
        "unknown type",
        lease(2, "wireguard"),
        "10.244.2.0/24 of 192.168.9.2: it publishes the backend type 'wireguard'",
    ),
    (
        "other VNI",
        lease(2, backend_data={"VNI": 2, "VtepMAC": "02:00:00:04:00:02"}),
        "10.244.2.0/24 of 192.168.9.2: it publishes VNI 2, this network has 1",
    ),
    (
        "no MAC",
        lease(2, backend_data={"VNI": 1}),
        "10.244.2.0/24 of 192.168.9.2: it publishes the VtepMAC None",
    ),
    (
        "multicast MAC",
        lease(2, backend_data={"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"}),
        '10.244.2.0/24 of 192.168.9.2: it publishes the VtepMAC "01:00:5e:00:00:01"',
    ),
    ("no data", lease(2, backend_data=None), "10.244.2.0/24 of 192.168.9.2: it publishes the Vtep"),
    ("no address", lease(2, public_ip=None), "10.244.2.0/24: its holder publishes no IPv4 address"),
]


@pytest.mark.parametrize(("peer", "text"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS])
def test_one_bad_peer_is_named_and_the_others_are_reached(peer: Any, text: str) -> None:
    planned = plan(lease(4), peer, lease(3))
    assert len(planned.problems) == 1
    assert planned.problems[0].startswith(text)
    reached = {route.destination for route in planned.routes}
    assert reached == {ip_network("10.244.3.0/24"), ip_network("10.244.4.0/24")}


def test_a_shared_mac_is_the_first_ones() -> None:
    twin = lease(3, backend_data=lease(2).attributes.backend_data)
    for order in ((lease(2), twin), (twin, lease(2))):
        planned = plan(*order)
        assert planned.routes == {TUNNEL[2]}
        assert planned.problems == (
            (
                "10.244.3.0/24 of 192.168.9.3: it publishes the VtepMAC 02:00:00:04:00:02,"
                " which 10.244.2.0/24 of 192.168.9.2 has too"
            ),
        )


@pytest.mark.parametrize(
    "mac", ["02:00:00:04:00:02", "02-00-00-04-00-02", "02:00:00:04:00:02".upper()]
)
def test_spellings_of_a_mac(mac: str) -> None:
    planned = plan(lease(2, backend_data={"vni": 1, "vtepmac": mac}))
    assert planned.neighbours == {TUNNEL[0]}


def test_old_go_daemons_publish_no_vni() -> None:
    planned = plan(lease(2, backend_data={"VtepMAC": "02:00:00:04:00:02"}))
    assert planned.routes == {TUNNEL[2]}


# -------------------------------------------------------------------------------- what is leased


def test_one_public_address_of_two_peers_is_told() -> None:
    planned = plan(lease(2), lease(3, public_ip=IPv4Address("192.168.9.2")))
    assert len(planned.routes) == 2
    assert planned.warnings == (
        (
            "10.244.2.0/24, 10.244.3.0/24: all of 192.168.9.2: at most one node has it;"
            " give each node its own with --iface or --public-ip"
        ),
    )


def test_this_nodes_own_address_is_never_a_peer() -> None:
    """One with this node's MAC is its own, from before; any other is another node's."""
    own = IPv4Address("192.168.9.1")
    planned = plan(lease(2, public_ip=own, backend_data=lease(1).attributes.backend_data))
    assert not planned.routes
    assert not planned.problems
    assert "this node's own public address" in planned.warnings[0]
    planned = plan(lease(2, public_ip=own), lease(3))
    assert {route.destination for route in planned.routes} == {lease(3).subnet}
    assert (
        "10.244.2.0/24 of 192.168.9.1: that is an address of this node: another"
        in (planned.problems[0])
    )


def test_a_subnet_outside_the_network_is_not_routed() -> None:
    stranger = lease(2)
    wide = type(stranger)(IPv4Network("192.168.0.0/16"), None, stranger.attributes)
    planned = plan(wide)
    assert not planned.routes
    assert planned.warnings[0].startswith("192.168.0.0/16 of 192.168.9.2: it lies outside")


def test_a_subnet_of_this_nodes_own() -> None:
    peer = lease(2)
    planned = plan(type(peer)(IPv4Network("10.244.0.0/23"), None, peer.attributes))
    assert not planned.routes
    assert "overlaps this node's own subnet 10.244.1.0/24" in planned.problems[0]


def test_one_subnet_of_two_peers() -> None:
    second = lease(3)
    twin = type(second)(lease(2).subnet, None, second.attributes)
    for order in ((lease(2), twin), (twin, lease(2))):
        planned = plan(*order)
        assert planned.forwards == {TUNNEL[1]}
        assert planned.problems == (
            (
                "10.244.2.0/24 of 192.168.9.3: 10.244.2.0/24 of 192.168.9.2 publishes the same"
                " subnet, and is the older lease; that one is programmed. Delete the wrong lease"
            ),
        )

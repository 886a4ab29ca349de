"""What peers publish, checked: one that is wrong is named, and the others are reached."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.backend import peers
from flanneld.backend.registry import backend_for
from flanneld.config import parse
from tests.unit.flanneld.cluster import IDENTITY, conf, external, lease

if TYPE_CHECKING:
    from flanneld.config import NetConf
    from flanneld.lease import Lease

GOOD = [replace(lease(n), since=n) for n in (2, 3)]
WIDE = parse('{"Network":"192.168.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}')


def at(subnet: str, host: str, since: int = 9, n: int = 9) -> Lease:
    """A lease of any subnet and public address."""
    return replace(lease(n, public_ip=IPv4Address(host)), subnet=IPv4Network(subnet), since=since)


def check(*leases: Lease, network: NetConf | None = None, **outer: Any) -> peers.Peers:
    networks = [net for net in ((network or conf()).network,) if net is not None]
    own = replace(lease(1), subnet=network.pool.first) if network and network.pool else lease(1)
    return peers.check(own, leases, external(**outer), networks)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("224.0.0.9", "is a multicast address"),
        ("255.255.255.255", "is the broadcast address"),
        ("127.0.0.1", "is a loopback address"),
        ("240.0.0.1", "is reserved"),
        ("0.1.2.3", "is no host's"),
        ("192.168.9.255", "is the broadcast address of 192.168.9.0/24"),
        ("192.168.9.0", "is the first of 192.168.9.0/24"),
        ("10.244.1.7", "lies in this node's own subnet"),
        ("10.244.2.7", "lies in a node's subnet"),
        ("10.244.9.7", "lies in a node's subnet"),
    ],
)
def test_a_public_address_that_is_no_node_s(host: str, why: str) -> None:
    found = check(*GOOD, at("10.244.9.0/24", host))
    assert [peer.subnet for peer in found.usable] == [one.subnet for one in GOOD]
    assert why in found.problems[0]
    assert found.problems[0].startswith("10.244.9.0/24 of ")


@pytest.mark.parametrize("kind", ["vxlan", "host-gw"])
@pytest.mark.parametrize(
    "host", ["ff02::1", "::1", "::ffff:192.168.9.9", "fe80::9%eth0", "fd09::", "::9"]
)
def test_a_public_address_of_ipv6_that_is_no_node_s(kind: str, host: str) -> None:
    bad = lease(9, kind, families="46", public_ip6=IPv6Address(host))
    planned = backend_for(conf(kind, families="46")).plan(
        lease(1, kind, families="46"), [bad], external(), IDENTITY
    )
    assert "fd44:0:0:9::/64" in planned.problems[0]
    assert {route.destination for route in planned.routes} == {bad.subnet}


def test_an_address_of_this_node_is_no_peer_s() -> None:
    found = check(at("10.244.9.0/24", "192.168.9.77"), local=(IPv4Address("192.168.9.77"),))
    assert "that is an address of this node" in found.problems[0]
    assert not found.usable


RESERVED = tuple(map(ip_network, ("192.168.9.0/24", "192.168.9.1/32", "192.168.70.1/32")))


@pytest.mark.parametrize(
    "subnet",
    ["192.168.9.0/26", "192.168.9.128/25", "192.168.8.0/22", "192.168.70.0/26"],
)
def test_a_subnet_that_the_underlay_is_in(subnet: str) -> None:
    good = at("192.168.50.0/26", "192.168.9.5")
    found = check(good, at(subnet, "192.168.9.7"), network=WIDE, reserved=RESERVED)
    assert [str(peer.subnet) for peer in found.usable] == ["192.168.50.0/26"]
    assert found.problems[0].startswith(f"{subnet} of 192.168.9.7: 192.168.")
    assert "would not be reached any more" in found.problems[0]
    assert "overlaps this node's underlay: 192.168.9.0/24" in found.warnings[0]


def test_a_subnet_with_a_peer_s_address() -> None:
    """The later of the two is wrong, whichever it is."""
    good = at("192.168.50.0/26", "192.168.80.5", since=3)
    covering = at("192.168.80.0/26", "192.168.9.7", since=5)
    found = check(good, covering, network=WIDE)
    assert [str(peer.subnet) for peer in found.usable] == ["192.168.50.0/26"]
    assert "the public address of 192.168.50.0/26 of 192.168.80.5 lies in it" in found.problems[0]
    found = check(replace(good, since=7), covering, network=WIDE)
    assert [str(peer.subnet) for peer in found.usable] == ["192.168.80.0/26"]


def test_of_overlapping_subnets_the_oldest_counts() -> None:
    inner = at("10.244.9.128/25", "192.168.9.9", since=3)
    outer = at("10.244.8.0/22", "192.168.9.8", since=5)
    last = at("10.244.9.0/25", "192.168.9.10", since=6)
    found = check(last, outer, inner)
    assert [str(peer.subnet) for peer in found.usable] == ["10.244.9.0/25", "10.244.9.128/25"]
    assert "overlaps it, and is the older lease" in found.problems[0]


@pytest.mark.parametrize("subnet", ["0.0.0.0/1", "10.244.0.0/16", "10.244.128.0/17", "10.0.0.0/8"])
def test_a_subnet_as_wide_as_the_network_is_nobody_s(subnet: str) -> None:
    found = check(*GOOD, at(subnet, "192.168.9.9", since=1))
    assert [peer.subnet for peer in found.usable] == [one.subnet for one in GOOD]


def test_of_two_with_one_mac_the_newer_is_reached() -> None:
    """A node that has moved leaves a lease behind."""
    before = replace(lease(2), since=2)
    after = replace(at("10.244.9.0/24", "192.168.9.2", since=5, n=2))
    planned = backend_for(conf()).plan(lease(1), [before, after], external(), IDENTITY)
    assert {route.destination for route in planned.routes} == {after.subnet}
    assert planned.problems[0].startswith("10.244.2.0/24 of 192.168.9.2: it publishes the VtepMAC")


def test_this_node_s_own_mac_is_no_peer_s() -> None:
    twin = lease(2, backend_data=lease(1).attributes.backend_data)
    planned = backend_for(conf()).plan(lease(1), [twin], external(), IDENTITY)
    assert not planned.forwards
    assert "this node's own VtepMAC" in planned.problems[0]


def test_udp_takes_no_underlay_with_it() -> None:
    """Its one route for all would lead even what is sent to nodes back into the device."""
    made = backend_for(conf("udp"))
    peer = lease(2, "")
    planned = made.plan(
        lease(1, ""), [peer], external(reserved=(ip_network("10.244.7.0/24"),)), IDENTITY
    )
    assert {route.destination for route in planned.routes} == {peer.subnet}

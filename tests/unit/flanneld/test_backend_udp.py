"""The udp planner: one route for the network, the forwarder's table, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from flanneld.backend.base import Forwards
from flanneld.backend.registry import backend_for
from flanneld.config import ConfigError
from flanneld.desired import Address, Route
from flanneld.forward.forwarding import Forwarding
from flanneld.lease import Attributes
from tests.unit.flanneld.cluster import IDENTITY, conf, external, lease

OWN = lease(1, "")
PEERS = [OWN, lease(2, ""), lease(3, "")]
UDP = backend_for(conf("udp"))


def forwarding(**backend: Any) -> Forwarding:
    made = backend_for(conf("udp", **backend))
    assert isinstance(made, Forwards)
    return made.forwarding(OWN, PEERS, external())


def test_it_publishes_its_address_without_a_type_as_go_does() -> None:
    assert UDP.attributes(external(), IDENTITY) == Attributes(IPv4Address("192.168.9.1"))


def test_two_headers_are_taken_from_the_mtu() -> None:
    assert UDP.mtu(external()) == 1472
    with pytest.raises(ConfigError, match="MTU of eth0 is 90"):
        UDP.mtu(external(mtu=90))


def test_one_route_leads_to_all_peers() -> None:
    planned = UDP.plan(OWN, PEERS, external(), IDENTITY)
    assert planned.addresses == {Address("flannel0", IPv4Interface("10.244.1.0/32"))}
    assert planned.routes == {Route("flannel0", IPv4Network("10.244.0.0/16"), None)}
    assert planned.problems == ()


def test_the_forwarder_has_each_peer_and_not_this_node() -> None:
    assert forwarding() == Forwarding(
        device="flannel0",
        mtu=1472,
        local=IPv4Address("192.168.9.1"),
        port=8285,
        network=IPv4Network("10.244.0.0/16"),
        subnet=IPv4Network("10.244.1.0/24"),
        strict=True,
        nodes={
            IPv4Network("10.244.2.0/24"): IPv4Address("192.168.9.2"),
            IPv4Network("10.244.3.0/24"): IPv4Address("192.168.9.3"),
        },
    )


def test_the_keys_of_the_backend() -> None:
    assert forwarding(Port=8286).port == 8286
    assert not forwarding(AnySource=True).strict


def test_behind_nat_the_socket_has_the_interface_s_address() -> None:
    natted = external(public_ip=IPv4Address("203.0.113.7"))
    assert isinstance(UDP, Forwards)
    assert UDP.forwarding(OWN, PEERS, natted).local == IPv4Address("192.168.9.1")
    assert UDP.attributes(natted, IDENTITY).public_ip == IPv4Address("203.0.113.7")


def test_a_peer_of_another_type_is_a_problem_and_no_target() -> None:
    other = lease(4, "vxlan")
    planned = UDP.plan(OWN, [*PEERS, other], external(), IDENTITY)
    assert len(planned.problems) == 1
    assert "10.244.4.0/24" in planned.problems[0]
    assert isinstance(UDP, Forwards)
    assert other.subnet not in UDP.forwarding(OWN, [*PEERS, other], external()).nodes


@pytest.mark.parametrize(
    ("families", "backend", "says"),
    [
        ("46", {}, "IPv4 alone, and IPv6Network is fd44::/48"),
        ("4", {"Port": 0}, "Port"),
        ("4", {"Port": 70000}, "Port"),
        ("4", {"AnySource": "yes"}, "AnySource"),
    ],
)
def test_what_cannot_be_is_named(families: str, backend: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        backend_for(conf("udp", families=families, **backend))


def test_an_interface_without_ipv4_is_named() -> None:
    assert isinstance(UDP, Forwards)
    with pytest.raises(ConfigError, match="eth0 has no IPv4 address"):
        UDP.forwarding(OWN, PEERS, replace(external(), address=None))

"""IPv6: router advertisements inside and outside, addresses usable at once, and no IPv6 at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    GATEWAY6,
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    check,
    delete,
    host_local,
    make_conf,
    set_sysctl,
    sysctl,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

DUAL = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET, SUBNET6))
ACCEPT_RA = "net/ipv6/conf/{}/accept_ra"
FORWARDING = "net/ipv6/conf/all/forwarding"


# --------------------------------------------------------------------------------------- in the pod


def test_a_pod_with_static_addresses_takes_no_router_advertisements(node: Node) -> None:
    attach(node, DUAL)
    assert sysctl(node, ACCEPT_RA.format("eth0"), "p1") == "0"


def test_keep_accept_ra_leaves_them_on(node: Node) -> None:
    attach(node, {**DUAL, "keepAcceptRA": True})
    assert sysctl(node, ACCEPT_RA.format("eth0"), "p1") == "1"


def test_a_pod_without_ipv6_addresses_keeps_its_switches(node: Node) -> None:
    attach(node, make_conf())
    assert sysctl(node, ACCEPT_RA.format("eth0"), "p1") == "1"


def test_bridge_and_host_end_take_no_router_advertisements(node: Node) -> None:
    veth = attach(node, make_conf())["interfaces"][1]["name"]
    assert [sysctl(node, ACCEPT_RA.format(name)) for name in ("cni0", veth)] == ["0", "0"]


def test_no_address_is_tentative_when_add_returns(node: Node) -> None:
    attach(node, DUAL)
    for pod, link in ((None, "cni0"), ("p1", "eth0")):
        (found,) = node.ip("address", "show", "dev", link, pod=pod)
        ours = [one for one in found["addr_info"] if one["local"].startswith("fd00:88:")]
        (address,) = ours
        assert not address.get("tentative"), address
        assert address["nodad"], address


def test_the_bridge_s_own_address_is_usable_from_the_first_port_on(node: Node) -> None:
    """Of it the node asks for a pod's neighbour, when the packet comes from another node."""
    attach(node, DUAL)
    local: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while not local:
        (found,) = node.ip("address", "show", "dev", "cni0")
        local = [one for one in found["addr_info"] if one["local"].startswith("fe80:")]
        assert time.monotonic() < deadline, found
    assert not local[0].get("tentative"), local


def test_a_bridge_without_ipv6_keeps_its_switch(node: Node) -> None:
    attach(node, make_conf())
    assert sysctl(node, "net/ipv6/conf/cni0/accept_dad") == "1"


def test_the_first_packets_of_the_first_pod_are_answered(node: Node) -> None:
    attach(node, DUAL)
    node.pod_run("p1", ["ping", "-c1", "-W3", "fd00:88::1"])
    node.run(["ping", "-c1", "-W3", "fd00:88::2"])
    node.pod_run("p1", ["ping", "-c1", "-W3", "10.88.1.1"])


def test_enabledad_lets_the_kernel_look_for_duplicates(node: Node) -> None:
    attach(node, {**DUAL, "enabledad": True})
    switches = [f"net/ipv6/conf/eth0/{name}" for name in ("accept_dad", "enhanced_dad")]
    assert [sysctl(node, switch, "p1") for switch in switches] == ["1", "1"]
    (found,) = node.ip("address", "show", "dev", "eth0", pod="p1")
    (address,) = [one for one in found["addr_info"] if one["local"].startswith("fd00:88:")]
    assert "nodad" not in address
    assert "tentative" not in address


def test_enabledad_finds_the_host_that_has_the_address(node: Node) -> None:
    attach(node, DUAL)
    node.add_pod("p2")
    address = node.addresses("p1")["eth0"]
    assert "fd00:88::2/64" in address
    node.run(["ip", "-n", "p1", "address", "add", "fd00:88::3/64", "dev", "eth0", "nodad"])
    before = set(node.links())
    outcome = node.cni(
        "ADD",
        {**DUAL, "enabledad": True},
        container_id="p2",
        netns="/run/netns/p2",
        plugin="bridge",
    )
    assert outcome.error["code"] == 103
    assert "link eth0 has address fd00:88::3/64 in DADFAILED state" in outcome.error["msg"]
    assert set(node.links()) == before
    assert set(node.links("p2")) == {"lo"}


def test_a_pod_whose_namespace_has_ipv6_off_gets_it_for_its_address(node: Node) -> None:
    node.add_pod("p1")
    for name in ("all", "default"):
        set_sysctl(node, f"net/ipv6/conf/{name}/disable_ipv6", "1", "p1")
    attach(node, DUAL)
    node.pod_run("p1", ["ping", "-c1", "-W3", "fd00:88::1"])


def test_an_address_outlives_the_link_going_down(node: Node) -> None:
    attach(node, DUAL)
    node.run(["ip", "-n", "p1", "link", "set", "eth0", "down"])
    assert "fd00:88::2/64" in node.addresses("p1")["eth0"]


# ------------------------------------------------------------ uplinks that live from advertisements


def make_uplink(node: Node, accept_ra: str = "1", protocol: str = "ra") -> None:
    """Give the node an uplink with a default route, as a router advertisement leaves it."""
    node.add_pod("router")
    peer = ["peer", "name", "up0", "netns", "router"]
    node.run(["ip", "link", "add", "up0", "type", "veth", *peer])
    set_sysctl(node, ACCEPT_RA.format("up0"), accept_ra)
    node.run(["ip", "link", "set", "up0", "up"])
    node.run(["ip", "-n", "router", "link", "set", "up0", "up"])
    via = ["default", "via", "fe80::1", "dev", "up0", "proto", protocol, "metric", "1024"]
    node.run(["ip", "-6", "route", "add", *via])


def test_such_an_uplink_goes_on_taking_them(node: Node) -> None:
    make_uplink(node)
    attach(node, DUAL)
    assert sysctl(node, FORWARDING) == "1"
    assert sysctl(node, ACCEPT_RA.format("up0")) == "2"


def test_its_default_route_stays(node: Node) -> None:
    make_uplink(node)
    before = node.routes(family=6)
    attach(node, DUAL)
    for route in before:
        assert route in node.routes(family=6)


def test_it_is_told_so_before_forwarding_goes_on(node: Node) -> None:
    make_uplink(node)
    env: dict[str, str | None] = {"CNI_FLANNEL_DEBUG": "1"}
    said = add(node, DUAL, env=env).stderr
    assert 0 < said.index("up0/accept_ra=2") < said.index("all/forwarding=1")


@pytest.mark.parametrize(("accept_ra", "protocol"), [("0", "ra"), ("2", "ra"), ("1", "static")])
def test_other_uplinks_are_left_alone(node: Node, accept_ra: str, protocol: str) -> None:
    make_uplink(node, accept_ra, protocol)
    attach(node, DUAL)
    assert sysctl(node, ACCEPT_RA.format("up0")) == accept_ra


def test_an_ipv4_pod_leaves_ipv6_forwarding_and_uplinks_alone(node: Node) -> None:
    make_uplink(node)
    attach(node, make_conf())
    assert sysctl(node, ACCEPT_RA.format("up0")) == "1"
    assert sysctl(node, FORWARDING) == "0"


# ------------------------------------------------------------------------------------- without IPv6


def assert_ipv4_works(node: Node) -> None:
    conf = make_conf(isDefaultGateway=True, ipMasq=True)
    result = attach(node, conf)
    node.pod_run("p1", ["ping", "-c1", "-W3", "10.88.1.1"])
    outcome = check(node, conf, result)
    assert outcome.status == 0, outcome
    delete(node, conf)
    assert traces(node) == []


def test_ipv4_pods_where_ipv6_is_switched_off(node: Node) -> None:
    node.add_pod("p1")
    for pod in (None, "p1"):
        for name in ("all", "default"):
            set_sysctl(node, f"net/ipv6/conf/{name}/disable_ipv6", "1", pod)
    assert_ipv4_works(node)


def test_ipv4_pods_where_the_kernel_has_no_ipv6(node: Node) -> None:
    node.run(["mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6"])
    assert_ipv4_works(node)


def test_an_ipv6_pod_there_gets_a_clear_error_and_nothing_stays(node: Node) -> None:
    node.run(["mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6"])
    error = add(node, DUAL).error
    assert error["code"] == 101
    assert "net/ipv6" in error["msg"]
    assert traces(node) == []


def test_ipv6_alone(node: Node) -> None:
    conf = make_conf(isDefaultGateway=True, ipMasq=True, ipam=host_local(SUBNET6))
    attach(node, conf)
    assert node.addresses()["cni0"] == [GATEWAY6]
    node.pod_run("p1", ["ping", "-c1", "-W3", "fd00:88::1"])
    delete(node, conf)
    assert traces(node) == []

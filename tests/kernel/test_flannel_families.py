"""ADD of `flannel` on nodes with IPv6, both families, and several networks; pods talk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.attachments import (
    CONF,
    DUAL_STACK,
    LEASES,
    ONLY_V6,
    conf_with,
    delete,
    leases,
    must_add,
    ping,
    remains,
    rules,
    states,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node


def sysctl(node: Node, name: str, pod: str | None = None) -> str:
    """Read a switch of the node or of a pod."""
    argv = ["cat", f"/proc/sys/{name}"]
    return (node.run(argv) if pod is None else node.pod_run(pod, argv)).stdout.strip()


# --------------------------------------------------------------------------------------- dual-stack


def test_pod_of_a_dual_stack_node_gets_an_address_of_each_family(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    result = must_add(node)
    assert result["ips"] == [
        {"address": "10.244.1.2/24", "gateway": "10.244.1.1", "interface": 2},
        {"address": "fd00:f1:0:1::2/64", "gateway": "fd00:f1:0:1::1", "interface": 2},
    ]
    assert node.addresses("a")["eth0"] == ["10.244.1.2/24", "fd00:f1:0:1::2/64"]


def test_dual_stack_result_routes_both_families(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    assert must_add(node)["routes"] == [
        {"dst": "10.244.0.0/16"},
        {"dst": "fd00:f1::/56"},
        {"dst": "0.0.0.0/0", "gw": "10.244.1.1"},
        {"dst": "::/0", "gw": "fd00:f1:0:1::1"},
    ]


def test_dual_stack_bridge_has_both_gateway_addresses(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    must_add(node)
    assert node.addresses()["cni0"] == ["10.244.1.1/24", "fd00:f1:0:1::1/64"]


def test_dual_stack_pods_reach_each_other_and_the_gateway(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    for pod in ("a", "b"):
        must_add(node, pod)
    reached = {
        address: ping(node, "a", address)
        for address in ("10.244.1.1", "10.244.1.3", "fd00:f1:0:1::1", "fd00:f1:0:1::3")
    }
    assert all(reached.values()), reached


def test_dual_stack_leases_and_round_robin_of_each_family(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    must_add(node)
    assert leases(node) == {
        "10.244.1.2": "cid-a\r\neth0",
        "fd00:f1:0:1::2": "cid-a\r\neth0",
    }
    files = node.files(f"{LEASES}/cbr0")
    assert files["last_reserved_ip.0"] == b"10.244.1.2"
    assert files["last_reserved_ip.1"] == b"fd00:f1:0:1::2"


def test_dual_stack_state_file_is_the_reference_plugins(node: Node) -> None:
    node.write_subnet_env(**DUAL_STACK)
    must_add(node)
    assert states(node)["cid-a"]["ipam"] == {
        "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:f1:0:1::/64"}]],
        "routes": [{"dst": "10.244.0.0/16"}, {"dst": "fd00:f1::/56"}],
        "type": "host-local",
    }


def test_dual_stack_del_leaves_nothing(node: Node) -> None:
    node.write_subnet_env(ipmasq="false", **DUAL_STACK)
    must_add(node)
    masquerading = [rule for rule in rules(node) if rule.endswith("-j MASQUERADE")]
    assert [rule.split(" -d ")[1].split()[0] for rule in masquerading] == [
        "224.0.0.0/4",
        "ff00::/8",
    ]
    delete(node)
    assert remains(node) == {}


# ---------------------------------------------------------------------------------------- IPv6 only


def test_pod_of_an_ipv6_node_gets_no_ipv4(node: Node) -> None:
    node.write_subnet_env(**ONLY_V6)
    assert must_add(node)["ips"] == [
        {"address": "fd00:f1:0:1::2/64", "gateway": "fd00:f1:0:1::1", "interface": 2}
    ]
    assert node.addresses("a")["eth0"] == ["fd00:f1:0:1::2/64"]


def test_ipv6_result_before_interfaces_were_invented(node: Node) -> None:
    node.write_subnet_env(**ONLY_V6)
    assert must_add(node, conf=conf_with(cniVersion="0.2.0")) == {
        "cniVersion": "0.2.0",
        "ip6": {
            "ip": "fd00:f1:0:1::2/64",
            "gateway": "fd00:f1:0:1::1",
            "routes": [{"dst": "fd00:f1::/56"}, {"dst": "::/0", "gw": "fd00:f1:0:1::1"}],
        },
        "dns": {},
    }


def test_ipv6_pods_reach_each_other_and_the_gateway(node: Node) -> None:
    node.write_subnet_env(**ONLY_V6)
    for pod in ("a", "b"):
        must_add(node, pod)
    assert ping(node, "a", "fd00:f1:0:1::1")
    assert ping(node, "b", "fd00:f1:0:1::2")


def test_ipv6_forwarding_is_switched_on(node: Node) -> None:
    node.write_subnet_env(**ONLY_V6)
    assert sysctl(node, "net/ipv6/conf/all/forwarding") == "0"
    must_add(node)
    assert sysctl(node, "net/ipv6/conf/all/forwarding") == "1"


def test_ipv6_address_is_usable_at_once(node: Node) -> None:
    node.write_subnet_env(**ONLY_V6)
    must_add(node)
    found = node.ip("-6", "address", "show", "dev", "eth0", "scope", "global", pod="a")
    (address,) = filter(None, found[0]["addr_info"])
    assert address.get("nodad") is True
    assert "tentative" not in address


@pytest.mark.parametrize(("keep", "value"), [(False, "0"), (True, "1")])
def test_pod_with_a_static_address_ignores_advertisements(
    node: Node, value: str, *, keep: bool
) -> None:
    node.write_subnet_env(**ONLY_V6)
    conf = conf_with(delegate={"keepAcceptRA": keep})
    must_add(node, conf=conf)
    assert sysctl(node, "net/ipv6/conf/eth0/accept_ra", "a") == value


def test_uplink_that_lives_from_advertisements_keeps_its_default_route(node: Node) -> None:
    node.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "router"])
    node.run(["ip", "link", "set", "up0", "up"])
    node.run(["ip", "link", "set", "router", "up"])
    route = ["default", "via", "fe80::1", "dev", "up0", "proto", "ra"]
    node.run(["ip", "-6", "route", "add", *route])
    node.write_subnet_env(**ONLY_V6)
    must_add(node)
    assert sysctl(node, "net/ipv6/conf/up0/accept_ra") == "2"
    assert sysctl(node, "net/ipv6/conf/router/accept_ra") == "1"


# --------------------------------------------------------------------------------- several networks


def test_every_network_gets_a_route(node: Node) -> None:
    node.write_subnet_env(network="10.244.0.0/16,10.245.0.0/16,10.246.7.7/16")
    assert must_add(node)["routes"][:3] == [
        {"dst": "10.244.0.0/16"},
        {"dst": "10.245.0.0/16"},
        {"dst": "10.246.0.0/16"},
    ]
    routes = {route["dst"]: route.get("gateway") for route in node.routes("a")}
    assert routes["10.246.0.0/16"] == "10.244.1.1"


def test_network_named_twice_gets_one_route(node: Node) -> None:
    node.write_subnet_env(network="10.244.0.0/16,10.244.0.0/16")
    assert [route["dst"] for route in must_add(node)["routes"]] == ["10.244.0.0/16", "0.0.0.0/0"]


def test_subnet_env_may_have_line_ends_and_lines_of_others(node: Node) -> None:
    node.write(
        "/run/flannel/subnet.env",
        "# written by hand\r\n\r\nFLANNEL_NETWORK=10.244.0.0/16\r\nFOO=bar=baz\r\n"
        "FLANNEL_SUBNET=10.244.7.1/24\r\nFLANNEL_MTU=1400\r\nFLANNEL_IPMASQ=true\r\n"
        "FLANNEL_SUBNET=10.244.1.1/24\r\n",
    )
    assert must_add(node, conf=CONF)["ips"][0]["address"] == "10.244.1.2/24"
    assert node.links("a")["eth0"]["mtu"] == 1400

"""The bridge is shared: each ADD repairs it, and says what to do when it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.attaching import (
    GATEWAY,
    GATEWAY6,
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    delete,
    end_pod,
    host_local,
    leases,
    make_conf,
    set_sysctl,
    sysctl,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

CONF = make_conf(mtu=1450, ipam=host_local(SUBNET, SUBNET6))
OTHER_SUBNET, OTHER_GATEWAY = "10.88.2.0/24", "10.88.2.1/24"


def reaches_gateway(node: Node, pod: str) -> bool:
    return node.pod_run(pod, ["ping", "-c2", "-i0.2", "-W5", "10.88.1.1"], check=False).status == 0


# ------------------------------------------------------------------------------------------ repairs


def test_a_bridge_that_is_down_comes_up(node: Node) -> None:
    attach(node, CONF, 1)
    node.run(["ip", "link", "set", "cni0", "down"])
    attach(node, CONF, 2)
    assert "UP" in node.links()["cni0"]["flags"]
    assert reaches_gateway(node, "p1")
    assert reaches_gateway(node, "p2")


def test_a_bridge_that_lost_its_ipv6_address_when_it_went_down_has_it_again(node: Node) -> None:
    attach(node, CONF, 1)
    node.run(["ip", "link", "set", "cni0", "down"])
    attach(node, CONF, 2)
    assert sorted(node.addresses()["cni0"]) == [GATEWAY, GATEWAY6]


@pytest.mark.parametrize("mtu", ["1400", "1500"])
def test_a_bridge_with_another_mtu_gets_the_conf_s(node: Node, mtu: str) -> None:
    attach(node, CONF, 1)
    node.run(["ip", "link", "set", "cni0", "mtu", mtu])
    attach(node, CONF, 2)
    assert node.links()["cni0"]["mtu"] == 1450


def test_a_bridge_keeps_its_mtu_when_the_conf_has_none(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "mtu", "1333", "type", "bridge"])
    attach(node, make_conf())
    node.run(["ip", "link", "set", "cni0", "mtu", "1400"])
    attach(node, make_conf(), 2)
    assert node.links()["cni0"]["mtu"] == 1400


def test_flushed_addresses_come_back(node: Node) -> None:
    attach(node, CONF, 1)
    node.run(["ip", "address", "flush", "dev", "cni0"])
    attach(node, CONF, 2)
    assert sorted(node.addresses()["cni0"]) == [GATEWAY, GATEWAY6]


@pytest.mark.parametrize("switch", ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"])
def test_forwarding_that_was_turned_off_comes_back(node: Node, switch: str) -> None:
    attach(node, CONF, 1)
    set_sysctl(node, switch, "0")
    attach(node, CONF, 2)
    assert sysctl(node, switch) == "1"


def test_promiscuous_mode_comes_back(node: Node) -> None:
    conf = make_conf(promiscMode=True)
    attach(node, conf, 1)
    node.run(["ip", "link", "set", "cni0", "promisc", "off"])
    attach(node, conf, 2)
    assert "PROMISC" in node.links()["cni0"]["flags"]


def test_a_bridge_that_was_deleted_is_made_again(node: Node) -> None:
    attach(node, CONF, 1)
    node.run(["ip", "link", "del", "cni0"])
    attach(node, CONF, 2)
    assert reaches_gateway(node, "p2")


def test_a_bridge_that_needs_nothing_is_left_as_it_is(node: Node) -> None:
    attach(node, CONF, 1)
    before = node.links()["cni0"], node.addresses()["cni0"]
    attach(node, CONF, 2)
    after = node.links()["cni0"], node.addresses()["cni0"]
    for key in ("flags", "operstate", "linkinfo"):  # those tell of carrier and timers
        del before[0][key], after[0][key]
    assert after == before


# ------------------------------------------------------------------------- an address is in the way


def test_another_subnet_while_pods_use_the_bridge_is_refused(node: Node) -> None:
    attach(node, make_conf(), 1)
    error = add(node, make_conf(ipam=host_local(OTHER_SUBNET)), 2).error
    assert error["code"] == 104
    wanted = f'"cni0" already has an IP address different from {OTHER_GATEWAY}'
    assert wanted in error["msg"]
    assert GATEWAY in error["msg"]


def test_that_refusal_names_both_subnets_and_what_to_do(node: Node) -> None:
    attach(node, make_conf(), 1)
    details = add(node, make_conf(ipam=host_local(OTHER_SUBNET)), 2).error["details"]
    for word in (SUBNET, OTHER_SUBNET, "restart", "forceAddress"):
        assert word in details


def test_that_refusal_changes_nothing(node: Node) -> None:
    attach(node, make_conf(), 1)
    add(node, make_conf(name="other", ipam=host_local(OTHER_SUBNET)), 2)
    assert node.addresses()["cni0"] == [GATEWAY]
    assert leases(node, "other") == []
    assert set(node.links("p2")) == {"lo"}
    assert reaches_gateway(node, "p1")


def test_without_ports_the_bridge_is_re_addressed_by_itself(node: Node) -> None:
    attach(node, make_conf(), 1)
    delete(node, make_conf(), 1)
    attach(node, make_conf(ipam=host_local(OTHER_SUBNET)), 2)
    assert node.addresses()["cni0"] == [OTHER_GATEWAY]


def test_a_port_whose_pod_is_gone_is_no_port(node: Node) -> None:
    attach(node, make_conf(), 1)
    end_pod(node)
    attach(node, make_conf(ipam=host_local(OTHER_SUBNET)), 2)
    assert node.addresses()["cni0"] == [OTHER_GATEWAY]


def test_force_address_re_addresses_although_there_are_ports(node: Node) -> None:
    attach(node, make_conf(), 1)
    attach(node, make_conf(forceAddress=True, ipam=host_local(OTHER_SUBNET)), 2)
    assert node.addresses()["cni0"] == [OTHER_GATEWAY]


def test_an_ipv6_subnet_beside_the_old_one_is_added(node: Node) -> None:
    attach(node, make_conf(ipam=host_local(SUBNET6)), 1)
    attach(node, make_conf(ipam=host_local("fd00:99::/64")), 2)
    assert sorted(node.addresses()["cni0"]) == [GATEWAY6, "fd00:99::1/64"]


def test_an_ipv6_subnet_that_overlaps_the_old_one_is_refused(node: Node) -> None:
    attach(node, make_conf(ipam=host_local(SUBNET6)), 1)
    error = add(node, make_conf(ipam=host_local("fd00:88::/80")), 2).error
    assert error["code"] == 104
    assert node.addresses()["cni0"] == [GATEWAY6]


def test_force_address_leaves_ipv6_addresses_of_other_subnets(node: Node) -> None:
    attach(node, make_conf(ipam=host_local("fd00:99::/64")), 1)
    attach(node, make_conf(ipam=host_local(SUBNET6)), 2)
    attach(node, make_conf(forceAddress=True, ipam=host_local("fd00:88::/80")), 3)
    assert sorted(node.addresses()["cni0"]) == ["fd00:88::1/80", "fd00:99::1/64"]


# -------------------------------------------------------------------------- something else is there


@pytest.mark.parametrize(
    "argv",
    [
        "ip link add cni0 type veth peer name other",
        "ip link add cni0 type dummy",
        "ip tuntap add cni0 mode tun",
    ],
    ids=["veth", "dummy", "tun"],
)
def test_a_name_that_is_no_bridge_s_is_refused_and_not_touched(node: Node, argv: str) -> None:
    if node.run(argv.split(), check=False).status:
        argv = "ip link add cni0 type veth peer name other"  # a kernel without that kind
        node.run(argv.split())
    before = node.links()["cni0"]
    error = add(node, make_conf()).error
    assert error["code"] == 104
    assert '"cni0" already exists but is not a bridge' in error["msg"]
    assert error["details"]
    assert node.links()["cni0"] == before
    assert node.addresses()["cni0"] == []
    assert leases(node) == []


def test_a_device_without_kind_is_called_physical(node: Node) -> None:
    error = add(node, make_conf(bridge="lo")).error
    assert error["code"] == 104
    assert "physical" in error["msg"]
    assert node.addresses()["lo"] == ["127.0.0.1/8", "::1/128"]


def test_a_bridge_that_an_administrator_made_is_used(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "type", "bridge", "stp_state", "0"])
    node.run(["ip", "link", "set", "cni0", "up"])
    node.run(["ip", "address", "add", GATEWAY, "dev", "cni0"])
    result = attach(node, make_conf())
    assert result["interfaces"][0]["name"] == "cni0"
    assert reaches_gateway(node, "p1")

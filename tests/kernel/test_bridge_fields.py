"""Every field of the bridge plugin's conf that an older Go plugin lacks, and the wrong values.

What both plugins know is compared conf by conf in test_bridge_go.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    check,
    delete,
    host_local,
    host_veth,
    leases,
    make_conf,
    rules,
    set_sysctl,
    sysctl,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

LAYER2: dict[str, Any] = {"isGateway": False, "ipam": {}}


def port(node: Node, result: dict[str, Any]) -> dict[str, Any]:
    """Return what the bridge does for the host's end."""
    found: dict[str, Any] = node.links()[host_veth(result)]["linkinfo"]["info_slave_data"]
    return found


def reaches(node: Node, pod: str, address: str, seconds: int = 5) -> bool:
    argv = ["ping", "-c2", "-i0.2", f"-W{seconds}", address]
    return node.pod_run(pod, argv, check=False).status == 0


# ------------------------------------------------------------------------------------ portIsolation


def test_port_isolation_sets_the_port_s_flag(node: Node) -> None:
    assert port(node, attach(node, make_conf(portIsolation=True)))["isolated"] is True


def test_isolated_pods_reach_the_gateway_but_not_each_other(node: Node) -> None:
    conf = make_conf(portIsolation=True)
    attach(node, conf, 1)
    attach(node, conf, 2)
    assert reaches(node, "p1", "10.88.1.1")
    assert not reaches(node, "p1", "10.88.1.3", 1)


def test_an_isolated_pod_reaches_one_that_is_not(node: Node) -> None:
    attach(node, make_conf(portIsolation=True), 1)
    attach(node, make_conf(), 2)
    assert reaches(node, "p1", "10.88.1.3")


def test_hairpin_and_isolation_together(node: Node) -> None:
    flags = port(node, attach(node, make_conf(portIsolation=True, hairpinMode=True)))
    assert (flags["isolated"], flags["hairpin"]) == (True, True)


# ------------------------------------------------------------------------ disableContainerInterface


def test_a_disabled_container_interface_stays_down(node: Node) -> None:
    attach(node, make_conf(**LAYER2, disableContainerInterface=True))
    assert "UP" not in node.links("p1")["eth0"]["flags"]


def test_a_disabled_container_interface_passes_check(node: Node) -> None:
    conf = make_conf(**LAYER2, disableContainerInterface=True)
    outcome = check(node, conf, attach(node, conf))
    assert outcome.status == 0, outcome


def test_a_layer_2_interface_is_up_and_without_address(node: Node) -> None:
    attach(node, make_conf(**LAYER2))
    assert "UP" in node.links("p1")["eth0"]["flags"]
    assert node.addresses("p1")["eth0"] == []
    assert leases(node) == []


# -------------------------------------------------------------------------------------- macspoofchk


def test_a_frame_with_a_forged_source_mac_is_dropped(node: Node) -> None:
    attach(node, make_conf(macspoofchk=True))
    assert reaches(node, "p1", "10.88.1.1")
    node.run(["ip", "-n", "p1", "link", "set", "eth0", "address", "0a:00:00:00:00:99"])
    assert not reaches(node, "p1", "10.88.1.1", 1)


def test_macspoofchk_goes_with_its_attachment_alone(node: Node) -> None:
    conf = make_conf(macspoofchk=True)
    attach(node, conf, 1)
    attach(node, conf, 2)
    delete(node, conf, 1)
    kept = rules(node)
    assert any("c2-eth0" in rule for rule in kept)
    assert not any("c1-eth0" in rule for rule in kept)


# ------------------------------------------------------------------------------------ ipMasqBackend


@pytest.mark.parametrize(
    ("backend", "mark"), [("nftables", "cni_plugins_masquerade"), ("iptables", "MASQUERADE")]
)
def test_the_backend_that_is_named_writes_the_rules(node: Node, backend: str, mark: str) -> None:
    attach(node, make_conf(ipMasq=True, ipMasqBackend=backend))
    assert any(mark in rule for rule in rules(node))
    assert all(rule.startswith("{") == (backend == "nftables") for rule in rules(node))


def test_nftables_masquerading_is_dual_stack_and_goes_at_del(node: Node) -> None:
    conf = make_conf(ipMasq=True, ipMasqBackend="nftables", ipam=host_local(SUBNET, SUBNET6))
    attach(node, conf)
    found = [json.loads(rule)["rule"]["comment"] for rule in rules(node)]
    assert len(found) == 2
    assert all("net: net" in comment and "id: c1" in comment for comment in found)
    delete(node, conf)
    assert traces(node) == []


def test_del_finds_the_rules_of_the_backend_that_add_had(node: Node) -> None:
    attach(node, make_conf(ipMasq=True, ipMasqBackend="nftables"))
    delete(node, make_conf(ipMasq=True, ipMasqBackend="iptables"))
    assert traces(node) == []


# -------------------------------------------------------------------------------------------- VLANs


def filters_vlans(node: Node) -> bool:
    """Whether this kernel can; the development kernel cannot."""
    argv = ["ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1"]
    if node.run(argv, check=False).status:
        return False
    node.run(["ip", "link", "del", "probe"])
    return True


@pytest.mark.parametrize(
    "keys",
    [
        {"vlan": 100},
        {"vlan": 1},
        {"vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]},
        {"vlan": 100, "vlanTrunk": [{"id": 5}], "preserveDefaultVlan": True},
    ],
    ids=str,
)
def test_vlans_work_or_the_error_names_what_the_kernel_lacks(
    node: Node, keys: dict[str, Any]
) -> None:
    outcome = add(node, make_conf(**keys))
    if filters_vlans(node):
        vlans = node.run(["bridge", "-j", "vlan", "show", "dev", host_veth(outcome.result)])
        assert str(keys.get("vlan", 1)) in vlans.stdout
        return
    assert outcome.error["code"] == 101
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in outcome.error["details"]
    assert "vlan_filtering 1" in outcome.error["msg"]
    assert traces(node) == []
    assert set(node.links()) == {"lo"}
    assert set(node.links("p1")) == {"lo"}


def test_a_bridge_that_does_not_filter_vlans_is_in_the_way(node: Node) -> None:
    attach(node, make_conf(), 1)
    error = add(node, make_conf(vlan=100), 2).error
    assert error["code"] == 104
    assert "vlan_filtering 1" in error["details"]
    assert leases(node) == ["10.88.1.2"]


# ------------------------------------------------------------------------------------ what is wrong

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mtu": -1}, "-1"),
    ({"mtu": "1500"}, '"1500"'),
    ({"mtu": 10**9}, "1000000000"),
    ({"vlan": 4095}, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
    ({"vlan": -1}, "invalid VLAN ID -1"),
    ({"vlanTrunk": [{"minID": 5}]}, "minID and maxID should be configured simultaneously"),
    ({"vlanTrunk": [{"minID": 9, "maxID": 5}]}, "minID is greater than maxID in trunk parameter"),
    ({"vlanTrunk": [{"minID": 0, "maxID": 5}]}, "incorrect trunk minID parameter"),
    ({"vlanTrunk": [{"id": 4095}]}, "incorrect trunk id parameter"),
    (
        {"hairpinMode": True, "promiscMode": True},
        "cannot set hairpin mode and promiscuous mode at the same time",
    ),
    (
        {"disableContainerInterface": True},
        "cannot use IPAM when DisableContainerInterface flag is set",
    ),
    ({"ipMasq": True, "ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"'),
    ({"bridge": "a-name-of-16-byt"}, "numerical result out of range"),
    ({"bridge": "a/b"}, "a/b"),
    ({"isGateway": "yes"}, '"yes"'),
    ({"ipam": []}, "[]"),
    ({"ipam": {"type": 5}}, "5"),
    ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "01:00:5e:00:00:01"),
    ({"args": {"cni": {"mac": "nonsense"}}}, "nonsense"),
]


@pytest.mark.parametrize(("keys", "words"), WRONG, ids=str)
def test_a_wrong_value_is_named_and_nothing_is_changed(
    node: Node, keys: dict[str, Any], words: str
) -> None:
    forwarding = sysctl(node, "net/ipv4/ip_forward")
    error = add(node, make_conf(**keys)).error
    assert error["code"] == 7
    assert words in error["msg"]
    assert error["details"]
    assert traces(node) == []
    assert (set(node.links()), set(node.links("p1"))) == ({"lo"}, {"lo"})
    assert sysctl(node, "net/ipv4/ip_forward") == forwarding


def test_a_missing_ipam_plugin_is_named_and_leaves_nothing(node: Node) -> None:
    error = add(node, make_conf(ipam={"type": "nowhere"})).error
    assert error["code"] == 105
    assert 'failed to find plugin "nowhere" in path' in error["msg"]
    assert traces(node) == []


# ----------------------------------------------------------------------------------------- the rest


def test_keys_match_without_regard_to_case(node: Node) -> None:
    attach(node, make_conf(MTU=1402, HairpinMode=True, isgateway=True))
    assert node.links("p1")["eth0"]["mtu"] == 1402


def test_null_is_as_good_as_absent(node: Node) -> None:
    keys = dict.fromkeys(("mtu", "vlan", "bridge", "hairpinMode", "vlanTrunk", "dns", "args"))
    attach(node, {**make_conf(), **keys})
    assert "cni0" in node.links()


def test_a_route_s_host_bits_do_not_matter(node: Node) -> None:
    routes = [{"dst": "192.168.7.9/24", "gw": "10.88.1.9"}]
    attach(node, make_conf(ipam=host_local(SUBNET, routes=routes)))
    assert "192.168.7.0/24" in [route["dst"] for route in node.routes("p1")]


def test_a_route_s_numbers_reach_the_kernel(node: Node) -> None:
    route = {"dst": "192.168.7.0/24", "gw": "10.88.1.9", "mtu": 1300, "advmss": 1200}
    route |= {"priority": 77, "table": 123}
    attach(node, make_conf(ipam=host_local(SUBNET, routes=[route])))
    (found,) = node.routes("p1", table="123")
    assert (found["metric"], found["gateway"]) == (77, "10.88.1.9")
    assert (found["metrics"][0]["mtu"], found["metrics"][0]["advmss"]) == (1300, 1200)


def test_forwarding_is_left_alone_without_a_gateway(node: Node) -> None:
    set_sysctl(node, "net/ipv4/ip_forward", "0")
    attach(node, make_conf(isGateway=False))
    assert sysctl(node, "net/ipv4/ip_forward") == "0"


def test_two_interfaces_of_one_pod_are_two_attachments(node: Node) -> None:
    conf = make_conf(ipMasq=True)
    attach(node, conf)
    second = attach(node, conf, ifname="net1")
    delete(node, conf)
    assert leases(node) == ["10.88.1.3"]
    assert host_veth(second) in node.links()
    assert len([rule for rule in rules(node) if "POSTROUTING" in rule]) == 1
    delete(node, conf, ifname="net1")
    assert traces(node) == []


def test_a_repeated_del_leaves_the_other_interface_s_rules(node: Node) -> None:
    conf = make_conf(ipMasq=True)
    attach(node, conf)
    attach(node, conf, ifname="net1")
    delete(node, conf, ifname="net1")
    before = rules(node)
    delete(node, conf, ifname="net1")
    assert rules(node) == before
    assert len([rule for rule in before if "POSTROUTING" in rule]) == 1

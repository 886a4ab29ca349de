"""Whose link is whose: MACs, aliases, neighbours, strangers, and the same attachment twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.attachment import Attachment
from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    call,
    delete,
    end_pod,
    host_local,
    host_veth,
    leases,
    make_conf,
    neighbours,
    rules,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

CONF = make_conf()
DUAL = make_conf(ipam=host_local(SUBNET, SUBNET6))
_STATIC = {"type": "static", "addresses": [{"address": "10.88.1.9/24"}]}
FIXED = make_conf(cniVersion="1.0.0", ipam=_STATIC)  # as new as Debian's plugin knows
ATTACHMENT = Attachment("net", "c1", "eth0")


def bridge_mac(node: Node) -> str:
    return str(node.links()["cni0"]["address"])


def dummy(node: Node, name: str, pod: str | None = None, kind: str = "dummy") -> None:
    """Make a stranger's link; where the kernel has no dummy, half of a veth pair."""
    where = [] if pod is None else ["-n", pod]
    argv = ["ip", *where, "link", "add", name, "type"]
    if kind == "veth" or node.run([*argv, "dummy"], check=False).status:
        node.run([*argv, "veth", "peer", "name", "stranger"])


# --------------------------------------------------------------------------------------------- MACs


def test_every_mac_was_given_at_creation(node: Node) -> None:
    veth = host_veth(attach(node, CONF))
    for link, pod in (("cni0", None), (veth, None), ("eth0", "p1")):
        argv = ["cat", f"/sys/class/net/{link}/addr_assign_type"]
        outcome = node.run(argv) if pod is None else node.pod_run(pod, argv)
        assert outcome.stdout == "3\n", link  # NET_ADDR_SET, linux/netdevice.h


def test_the_bridge_s_mac_stays_when_ports_come_and_go(node: Node) -> None:
    attach(node, CONF, 1)
    mac = bridge_mac(node)
    seen = set()
    for pod in range(2, 8):
        attach(node, CONF, pod)
        seen.add(bridge_mac(node))
    for pod in range(1, 8):
        delete(node, CONF, pod)
        seen.add(bridge_mac(node))
    assert seen == {mac}


def test_a_bridge_without_a_mac_of_its_own_keeps_the_one_it_has(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "type", "bridge"])
    mac = attach(node, CONF, 1)["interfaces"][0]["mac"]
    attach(node, CONF, 2)
    delete(node, CONF, 1)
    assert bridge_mac(node) == mac


def test_the_pod_s_mac_follows_from_its_address(node: Node) -> None:
    attach(node, CONF)
    assert node.links("p1")["eth0"]["address"] == "0a:58:0a:58:01:02"


def test_a_reused_address_keeps_its_mac(node: Node) -> None:
    first = attach(node, FIXED, 1)
    delete(node, FIXED, 1)
    second = attach(node, FIXED, 2)
    assert first["interfaces"][2]["mac"] == second["interfaces"][2]["mac"]


def test_a_mac_that_was_asked_for_goes_before(node: Node) -> None:
    attach(node, CONF, env={"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=x;MAC=0A:11:22:33:44:55"})
    assert node.links("p1")["eth0"]["address"] == "0a:11:22:33:44:55"


def test_the_result_tells_the_kernel_s_macs(node: Node) -> None:
    told = [link["mac"] for link in attach(node, CONF)["interfaces"]]
    links, veth = node.links(), ATTACHMENT.host_veth_name()
    inside = node.links("p1")["eth0"]
    assert told == [links["cni0"]["address"], links[veth]["address"], inside["address"]]


# --------------------------------------------------------------------------------------- neighbours


def wrong_neighbours(node: Node, *addresses: str) -> None:
    for address in addresses:
        neighbour = [address, "lladdr", "0a:00:00:00:00:99", "dev", "cni0", "nud", "permanent"]
        node.run(["ip", "neighbour", "replace", *neighbour])


def test_a_wrong_neighbour_entry_is_emptied_at_add(node: Node) -> None:
    attach(node, DUAL, 1)
    wrong_neighbours(node, "10.88.1.3", "fd00:88::3")
    attach(node, DUAL, 2)
    assert "0a:00:00:00:00:99" not in {entry["lladdr"] for entry in neighbours(node)}


def test_a_pod_whose_mac_a_later_plugin_changes_is_reached_at_once(node: Node) -> None:
    attach(node, DUAL, 1)
    node.run(["ip", "-n", "p1", "link", "set", "eth0", "address", "02:00:00:00:00:77"])
    for address in ("10.88.1.2", "fd00:88::2"):
        node.run(["ping", "-c1", "-W3", address])


def test_the_new_pod_answers_the_first_packet(node: Node) -> None:
    attach(node, DUAL, 1)
    wrong_neighbours(node, "10.88.1.3", "fd00:88::3")
    attach(node, DUAL, 2)
    for address in ("10.88.1.3", "fd00:88::3"):
        node.run(["ping", "-c1", "-W3", address])


def test_the_neighbour_entries_go_at_del(node: Node) -> None:
    attach(node, DUAL)
    for address in ("10.88.1.2", "fd00:88::2"):
        node.run(["ping", "-c1", "-W3", address])
    assert len(neighbours(node)) == 2
    delete(node, DUAL)
    assert neighbours(node) == []


def test_the_neighbour_entries_go_although_the_namespace_is_gone(node: Node) -> None:
    result = attach(node, DUAL)
    end_pod(node)
    delete(node, {**DUAL, "prevResult": result})
    assert neighbours(node) == []


# ------------------------------------------------------------------------ the proof that it is ours


def test_the_alias_spells_the_attachment_out(node: Node) -> None:
    veth = host_veth(attach(node, CONF))
    assert node.links()[veth]["ifalias"] == "flannel:net:c1:eth0"


def test_the_host_s_end_is_named_after_the_attachment(node: Node) -> None:
    assert host_veth(attach(node, CONF)) == ATTACHMENT.host_veth_name()


def test_a_stranger_s_link_of_that_name_is_passed_over(node: Node) -> None:
    dummy(node, ATTACHMENT.host_veth_name())
    before = node.links()[ATTACHMENT.host_veth_name()]
    assert host_veth(attach(node, CONF)) == ATTACHMENT.host_veth_name(1)
    assert node.links()[ATTACHMENT.host_veth_name()] == before


def test_del_leaves_a_stranger_s_link_of_that_name(node: Node) -> None:
    dummy(node, ATTACHMENT.host_veth_name())
    attach(node, CONF)
    delete(node, CONF)
    delete(node, CONF)
    assert ATTACHMENT.host_veth_name() in node.links()
    assert ATTACHMENT.host_veth_name(1) not in node.links()


@pytest.mark.parametrize("kind", ["dummy", "veth"])
def test_somebody_s_eth0_makes_add_fail_and_is_not_touched(node: Node, kind: str) -> None:
    node.add_pod("p1")
    dummy(node, "eth0", "p1", kind)
    before = node.links("p1")
    error = add(node, CONF).error
    assert error["code"] == 4
    assert 'container veth name ("eth0") peer provided' in error["msg"]
    assert "already exists" in error["msg"]
    assert node.links("p1") == before
    assert traces(node) == []


@pytest.mark.parametrize("kind", ["dummy", "veth"])
def test_del_leaves_somebody_s_eth0(node: Node, kind: str) -> None:
    node.add_pod("p1")
    dummy(node, "eth0", "p1", kind)
    delete(node, CONF)
    assert "eth0" in node.links("p1")


def test_del_in_a_reused_namespace_leaves_the_new_owner_s_interface(node: Node) -> None:
    attach(node, CONF, 2)
    delete(node, CONF, 1, netns="/run/netns/p2")
    assert "eth0" in node.links("p2")
    assert leases(node) == ["10.88.1.2"]


def test_del_leaves_an_eth0_that_is_on_somebody_s_bridge(node: Node) -> None:
    node.add_pod("p1")
    node.run(["ip", "link", "add", "br9", "type", "bridge"])
    peer = ["peer", "name", "eth0", "netns", "p1"]
    node.run(["ip", "link", "add", "vif1", "master", "br9", "type", "veth", *peer])
    attach(node, CONF, 2)
    delete(node, CONF)
    assert "eth0" in node.links("p1")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_plugin_s_own_namespace_is_refused_before_anything(node: Node, command: str) -> None:
    dummy(node, "eth0")
    error = call(node, command, CONF, netns="/proc/self/ns/net").error
    assert error["code"] == 8
    assert "eth0" in node.links()
    assert "cni0" not in node.links()


# ------------------------------------------------------------------------------- the same one again


def test_a_complete_attachment_is_not_added_again(node: Node) -> None:
    conf = make_conf(ipMasq=True)
    attach(node, conf)
    before = traces(node), node.links("p1"), node.routes("p1")
    error = add(node, conf).error
    assert error["code"] == 4
    assert "already exists" in error["msg"]
    assert "DEL" in error["details"]
    assert (traces(node), node.links("p1"), node.routes("p1")) == before


@pytest.mark.parametrize("keys", [{}, {"ipMasq": True}, {"ipMasq": True, "macspoofchk": True}])
def test_what_a_killed_add_left_is_rolled_back_and_redone(
    node: Node, keys: dict[str, bool]
) -> None:
    conf = make_conf(**keys)
    veth = host_veth(attach(node, conf))
    index = node.links()[veth]["ifindex"]
    node.run(["ip", "link", "set", veth, "alias", ATTACHMENT.alias(adding=True)])
    outcome = add(node, conf)
    assert "killed ADD" in outcome.stderr
    (address,) = [ip["address"] for ip in outcome.result["ips"]]
    assert node.addresses("p1")["eth0"] == [address]
    assert leases(node) == [address.removesuffix("/24")]
    assert node.links()[veth]["ifindex"] != index
    assert node.links()[veth]["ifalias"] == ATTACHMENT.alias(rules=bool(keys))


def test_rules_that_a_killed_add_left_do_not_stay_beside_the_new_ones(node: Node) -> None:
    conf = make_conf(ipMasq=True)
    veth = host_veth(attach(node, conf))
    node.run(["ip", "link", "set", veth, "alias", ATTACHMENT.alias(adding=True)])
    attach(node, conf)
    jumps = [rule for rule in rules(node) if rule.startswith("-A POSTROUTING")]
    assert len(jumps) == 1, jumps


def test_a_lease_that_a_killed_add_left_is_released(node: Node) -> None:
    node.write("/var/lib/cni/networks/net/10.88.1.7", "c1\r\neth0")
    attach(node, CONF)
    assert len(leases(node)) == 1


def test_del_takes_away_what_a_killed_add_left(node: Node) -> None:
    conf = make_conf(ipMasq=True, macspoofchk=True)
    veth = host_veth(attach(node, conf))
    node.run(["ip", "link", "set", veth, "alias", ATTACHMENT.alias(adding=True)])
    delete(node, conf)
    assert traces(node) == []

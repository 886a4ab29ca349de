"""Two interfaces of one container: the attachment is (network, container, interface)."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    STATE,
    SUBNET_ENV,
    conf_with,
    delete,
    leases,
    must_add,
    ping,
    remains,
    states,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

IFNAMES = ("eth0", "net1")
# One interface has the default route; the other one is for its network alone.
CONFS = {"eth0": CONF, "net1": conf_with(delegate={})}
ORDERS = [pytest.param(order, id=">".join(order)) for order in itertools.permutations(IFNAMES)]

OTHER_SUBNET_ENV = "/run/flannel/other.env"
OTHER: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "other",
    "type": "flannel",
    "subnetFile": OTHER_SUBNET_ENV,
    "delegate": {"bridge": "br-other"},
}
NETWORKS = {"cbr0": CONF, "other": OTHER}


@pytest.fixture(autouse=True)
def _subnet(node: Node) -> None:
    node.write_subnet_env()
    node.write_subnet_env(OTHER_SUBNET_ENV, network="10.77.0.0/16", subnet="10.77.3.1/24")


def attach_twice(node: Node) -> None:
    for ifname in IFNAMES:
        must_add(node, conf=CONFS[ifname], ifname=ifname)


# -------------------------------------------------------------------------- two on the same network


def test_each_interface_has_its_lease_and_its_state(node: Node) -> None:
    attach_twice(node)
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0", "10.244.1.3": "cid-a\r\nnet1"}
    assert sorted(states(node)) == ["cid-a", "cid-a:net1"]
    assert node.addresses("a")["eth0"] == ["10.244.1.2/24"]
    assert node.addresses("a")["net1"] == ["10.244.1.3/24"]


def test_second_add_does_not_touch_the_first_ones_state(node: Node) -> None:
    must_add(node)
    before = node.files(STATE)["cid-a"]
    must_add(node, conf=CONFS["net1"], ifname="net1")
    assert node.files(STATE)["cid-a"] == before


@pytest.mark.parametrize("order", ORDERS)
def test_first_del_leaves_the_other_interface_alone(node: Node, order: tuple[str, str]) -> None:
    attach_twice(node)
    gone, stays = order
    delete(node, conf=CONFS[gone], ifname=gone)
    assert list(leases(node).values()) == [f"cid-a\r\n{stays}"]
    assert list(states(node)) == ["cid-a" if stays == "eth0" else "cid-a:net1"]
    assert set(node.links("a")) == {"lo", stays}
    assert ping(node, "a", "10.244.1.1")


@pytest.mark.parametrize("order", ORDERS)
def test_both_dels_leave_nothing(node: Node, order: tuple[str, str]) -> None:
    attach_twice(node)
    for ifname in order:
        delete(node, conf=CONFS[ifname], ifname=ifname)
    assert remains(node) == {}


@pytest.mark.parametrize("order", ORDERS)
def test_both_dels_without_state_and_namespace_leave_nothing(
    node: Node, order: tuple[str, str]
) -> None:
    attach_twice(node)
    node.run(["rm", "-r", STATE, SUBNET_ENV])
    node.del_pod("a")
    first, second = order
    delete(node, conf=CONFS[first], ifname=first)
    assert list(leases(node).values()) == [f"cid-a\r\n{second}"]
    delete(node, conf=CONFS[second], ifname=second)
    assert remains(node).keys() <= {"neighbours"}


@pytest.mark.parametrize("order", ORDERS)
def test_masquerade_rules_of_both_go(node: Node, order: tuple[str, str]) -> None:
    node.write_subnet_env(ipmasq="false")
    attach_twice(node)
    for ifname in order:
        delete(node, conf=CONFS[ifname], ifname=ifname)
    assert remains(node) == {}


# -------------------------------------------------------- two networks with one directory of states


def attach_to_both(node: Node) -> None:
    for ifname, conf in zip(IFNAMES, NETWORKS.values(), strict=True):
        must_add(node, conf=conf, ifname=ifname)


@pytest.mark.parametrize("order", list(itertools.permutations(NETWORKS)), ids=">".join)
def test_networks_that_share_a_directory_do_not_disturb_each_other(
    node: Node, order: tuple[str, str]
) -> None:
    attach_to_both(node)
    names = dict(zip(NETWORKS, IFNAMES, strict=True))
    gone, stays = order
    delete(node, conf=NETWORKS[gone], ifname=names[gone])
    assert leases(node, gone) == {}
    assert list(leases(node, stays).values()) == [f"cid-a\r\n{names[stays]}"]
    assert [state["name"] for state in states(node).values()] == [stays]
    delete(node, conf=NETWORKS[stays], ifname=names[stays])
    assert node.files(STATE) == {}
    assert set(node.links()) == {"lo", "cni0", "br-other"}
    assert leases(node, stays) == {}


def test_state_of_another_network_is_not_taken_for_ours(node: Node) -> None:
    """The runtime deletes `other` on eth0 although eth0 is on `cbr0`: a mistake, not a licence."""
    must_add(node)
    delete(node, conf=OTHER)
    assert list(leases(node).values()) == ["cid-a\r\neth0"]
    assert [state["name"] for state in states(node).values()] == ["cbr0"]
    assert set(node.links("a")) == {"lo", "eth0"}


def test_state_that_the_reference_plugin_kept_for_both_interfaces(node: Node) -> None:
    """It names its file by the container alone, so the second ADD replaced the first one's."""
    attach_twice(node)
    path = node.path(STATE)
    (path / "cid-a:net1").rename(path / "cid-a")
    for ifname in ("net1", "eth0"):
        delete(node, conf=CONFS[ifname], ifname=ifname)
    assert remains(node) == {}


def test_names_of_state_files_cannot_collide(node: Node) -> None:
    """A container may be called like another one and its interface, but never with a colon."""
    must_add(node, "a", "x", conf=CONFS["net1"], ifname="net1")
    must_add(node, "b", "x-net1")
    assert sorted(states(node)) == ["x-net1", "x:net1"]
    text = node.files(STATE)["x:net1"]
    assert json.loads(text)["name"] == "cbr0"

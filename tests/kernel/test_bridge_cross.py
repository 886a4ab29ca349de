"""Go's bridge and ours on one node: each takes away what the other made, and lives beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    GATEWAY,
    GO_BRIDGE,
    MARKS,
    SUBNET,
    SUBNET6,
    attach,
    call,
    check,
    delete,
    end_pod,
    host_local,
    leases,
    make_conf,
    needs_go,
    neighbours,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = [*MARKS, needs_go]

CONF = make_conf(
    cniVersion="1.0.0",
    isDefaultGateway=True,
    ipMasq=True,
    macspoofchk=True,
    ipam=host_local(SUBNET, SUBNET6),
)
WAYS = pytest.mark.parametrize(
    ("adder", "deleter"), [("bridge", GO_BRIDGE), (GO_BRIDGE, "bridge")], ids=["ours", "go"]
)


@WAYS
def test_either_takes_away_what_the_other_made(adder: str, deleter: str, node: Node) -> None:
    attach(node, CONF, plugin=adder)
    assert traces(node)
    delete(node, CONF, plugin=deleter)
    gone = traces(node)
    if deleter == GO_BRIDGE:  # it knows nothing of neighbours: the next ADD replaces them
        gone = [trace for trace in gone if not trace.startswith("neighbour")]
    assert gone == []


@WAYS
def test_a_second_del_by_either_succeeds(adder: str, deleter: str, node: Node) -> None:
    attach(node, CONF, plugin=adder)
    delete(node, CONF, plugin=deleter)
    delete(node, CONF, plugin=adder)
    delete(node, CONF, plugin=deleter)


def test_go_s_attachment_goes_completely_although_its_namespace_is_gone(node: Node) -> None:
    result = attach(node, CONF, plugin=GO_BRIDGE)
    end_pod(node)
    delete(node, {**CONF, "prevResult": result})
    assert traces(node) == []


def test_go_s_attachment_goes_completely_when_no_namespace_is_named(node: Node) -> None:
    attach(node, CONF, plugin=GO_BRIDGE)
    end_pod(node)
    delete(node, CONF, netns=None)
    assert traces(node) == []


def test_both_kinds_of_pods_share_a_bridge_and_reach_each_other(node: Node) -> None:
    first = attach(node, CONF, 1, plugin=GO_BRIDGE)
    second = attach(node, CONF, 2)
    third = attach(node, CONF, 3, plugin=GO_BRIDGE)
    assert len({result["interfaces"][0]["mac"] for result in (first, second, third)}) == 1
    node.pod_run("p2", ["ping", "-c2", "-i0.2", "-W5", "10.88.1.2"])
    node.pod_run("p3", ["ping", "-c2", "-i0.2", "-W5", "fd00:88::3"])


def test_del_of_ours_leaves_go_s_neighbour_pod_alone(node: Node) -> None:
    attach(node, CONF, 1, plugin=GO_BRIDGE)
    attach(node, CONF, 2)
    delete(node, CONF, 2)
    assert leases(node) == ["10.88.1.2", "fd00:88::2"]
    node.pod_run("p1", ["ping", "-c2", "-i0.2", "-W5", "10.88.1.1"])


def test_a_bridge_of_go_s_gets_no_second_address(node: Node) -> None:
    attach(node, CONF, 1, plugin=GO_BRIDGE)
    attach(node, CONF, 2)
    assert node.addresses()["cni0"] == [GATEWAY, "fd00:88::1/64"]


def test_go_s_result_passes_our_check(node: Node) -> None:
    conf = {key: value for key, value in CONF.items() if key != "macspoofchk"}
    result = attach(node, conf, plugin=GO_BRIDGE)
    outcome = check(node, conf, result)
    assert outcome.status == 0, outcome


def test_our_result_passes_go_s_check(node: Node) -> None:
    result: dict[str, Any] = attach(node, CONF)
    outcome = check(node, CONF, result, plugin=GO_BRIDGE)
    assert outcome.status == 0, outcome


def test_an_address_that_go_s_pod_had_is_found_at_its_new_pod(node: Node) -> None:
    conf = make_conf(cniVersion="1.0.0", ipam={"type": "static"})
    conf["ipam"]["addresses"] = [{"address": "10.88.1.9/24", "gateway": "10.88.1.1"}]
    attach(node, conf, 1, plugin=GO_BRIDGE)
    node.run(["ping", "-c2", "-i0.2", "-W5", "10.88.1.9"])
    (before,) = neighbours(node)
    end_pod(node)
    result = attach(node, conf, 2)
    node.run(["ping", "-c1", "-W3", "10.88.1.9"])
    (after,) = neighbours(node)
    assert after["lladdr"] == result["interfaces"][2]["mac"] != before["lladdr"]


def test_a_second_add_over_go_s_attachment_is_refused_and_changes_nothing(node: Node) -> None:
    attach(node, CONF, plugin=GO_BRIDGE)
    before = traces(node)
    outcome = call(node, "ADD", CONF)
    assert outcome.error["code"] == 4
    assert "already exists" in outcome.error["msg"]
    assert traces(node) == before

"""The result of the bridge plugin: what chained plugins and runtimes rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    call,
    check,
    host_local,
    make_conf,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

DUAL: dict[str, Any] = {"isDefaultGateway": True, "ipam": host_local(SUBNET, SUBNET6)}


def test_interfaces_are_bridge_host_end_container_end(node: Node) -> None:
    bridge, host, container = attach(node, make_conf())["interfaces"]
    assert (bridge["name"], container["name"]) == ("cni0", "eth0")
    assert host["name"] in node.links()
    assert ["sandbox" in one for one in (bridge, host, container)] == [False, False, True]


def test_every_address_is_on_the_third_interface(node: Node) -> None:
    assert [ip["interface"] for ip in attach(node, make_conf(**DUAL))["ips"]] == [2, 2]


def test_the_sandbox_is_cni_netns_letter_by_letter(node: Node) -> None:
    node.add_pod("p1")
    netns = "/run/../run/netns//p1"
    result = attach(node, make_conf(), netns=netns)
    assert result["interfaces"][2]["sandbox"] == netns


@pytest.mark.parametrize("mtu", [None, 1402])
def test_the_mtu_of_each_interface_is_in_a_1_1_0_result(node: Node, mtu: int | None) -> None:
    result = attach(node, make_conf(mtu=mtu))
    assert [one["mtu"] for one in result["interfaces"]] == [mtu or 1500] * 3
    assert node.links("p1")["eth0"]["mtu"] == (mtu or 1500)


def test_the_mtu_told_of_the_bridge_is_the_bridge_s(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "mtu", "1333", "type", "bridge"])
    node.run(["ip", "link", "set", "cni0", "up"])
    result = attach(node, make_conf())
    assert result["interfaces"][0]["mtu"] == 1333
    assert [one["mtu"] for one in result["interfaces"][1:]] == [1333, 1333]


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_older_results_know_no_mtu(node: Node, version: str) -> None:
    result = attach(node, make_conf(cniVersion=version, mtu=1402))
    assert all("mtu" not in interface for interface in result["interfaces"])


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_oldest_results_have_one_address_of_each_family(node: Node, version: str) -> None:
    result = attach(node, make_conf(cniVersion=version, isDefaultGateway=True))
    assert result["ip4"] == {
        "ip": "10.88.1.2/24",
        "gateway": "10.88.1.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.1.1"}],
    }
    assert "interfaces" not in result


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_result_passes_check_in_its_own_version(node: Node, version: str) -> None:
    conf = make_conf(**DUAL, cniVersion=version, ipMasq=True)
    outcome = check(node, conf, attach(node, conf))
    assert outcome.status == 0, outcome


def test_a_result_is_printed_as_go_prints_it(node: Node) -> None:
    text = add(node, make_conf()).stdout
    assert text.startswith('{\n    "cniVersion": "1.1.0",\n    "interfaces": [\n        {')
    assert not text.endswith("\n")


@pytest.mark.parametrize("command", ["DEL", "GC", "STATUS"])
def test_the_other_verbs_print_nothing(node: Node, command: str) -> None:
    attach(node, make_conf())
    outcome = call(node, command, {**make_conf(), "cni.dev/valid-attachments": []})
    assert (outcome.status, outcome.stdout) == (0, "")


def test_a_layer_2_result_has_interfaces_alone(node: Node) -> None:
    result = attach(node, make_conf(isGateway=False, ipam={}))
    assert set(result) == {"cniVersion", "interfaces"}

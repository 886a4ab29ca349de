"""CHECK of `flannel`: the attachment against its result, the conf and the kernel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    DUAL_STACK,
    LEASES,
    STATE,
    SUBNET_ENV,
    call,
    conf_with,
    must_add,
    snapshot,
    with_result,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kernel.conftest import Node


def attach(node: Node, conf: dict[str, Any] = CONF) -> dict[str, Any]:
    """Attach pod `a` in both families, masqueraded; the conf for its CHECK."""
    node.write_subnet_env(ipmasq="false", **DUAL_STACK)
    return with_result(conf, must_add(node, conf=conf))


def told(node: Node, conf: dict[str, Any]) -> str:
    """Return what CHECK says of a difference."""
    error = call(node, "CHECK", conf=conf).error
    assert error["code"] == 106, error
    return str(error["msg"])


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_attachment_as_it_was_made_is_fine(node: Node, version: str) -> None:
    conf = attach(node, conf_with(cniVersion=version))
    done = call(node, "CHECK", conf=conf)
    assert (done.status, done.stdout, done.stderr) == (0, "", "")


def test_check_changes_nothing(node: Node) -> None:
    conf = attach(node)
    before = snapshot(node, "a")
    call(node, "CHECK", conf=conf)
    node.run(["ip", "-n", "a", "link", "set", "eth0", "mtu", "1460"])
    changed = snapshot(node, "a")
    told(node, conf)
    assert snapshot(node, "a") == changed
    assert before != changed


@pytest.mark.parametrize("lost", [STATE, SUBNET_ENV])
def test_check_needs_either_the_state_or_the_nodes_subnet(node: Node, lost: str) -> None:
    conf = attach(node)
    if lost == STATE:
        shutil.rmtree(node.path(STATE))
    else:
        node.path(lost).unlink()
    assert call(node, "CHECK", conf=conf).status == 0


IN_POD = ("ip", "-n", "a")
DIFFERENCES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "interface gone": ((*IN_POD, "link", "del", "eth0"), ["eth0", "not found in /run/netns/a"]),
    "interface down": ((*IN_POD, "link", "set", "eth0", "down"), ["Interface eth0 is down"]),
    "pod's MTU": (
        (*IN_POD, "link", "set", "eth0", "mtu", "1460"),
        ["Interface eth0 MTU", "1460", "1450"],
    ),
    "pod's MAC": (
        (*IN_POD, "link", "set", "eth0", "address", "0a:00:00:00:00:99"),
        ["Interface eth0 Mac", "0a:00:00:00:00:99", "0a:58:0a:f4:01:02"],
    ),
    "IPv4 address": (
        (*IN_POD, "address", "del", "10.244.1.2/24", "dev", "eth0"),
        ["Failed to match addr 10.244.1.2/24 on interface eth0"],
    ),
    "IPv6 address": (
        (*IN_POD, "address", "del", "fd00:f1:0:1::2/64", "dev", "eth0"),
        ["Failed to match addr fd00:f1:0:1::2/64 on interface eth0"],
    ),
    "route to a network": (
        (*IN_POD, "route", "del", "10.244.0.0/16"),
        ["route to 10.244.0.0/16 is missing"],
    ),
    "default route": (
        (*IN_POD, "-6", "route", "del", "default"),
        ["route to ::/0 via fd00:f1:0:1::1 is missing"],
    ),
    "default route's gateway": (
        (*IN_POD, "route", "replace", "default", "via", "10.244.1.9"),
        ["route to 0.0.0.0/0 via 10.244.1.1 is missing"],
    ),
    "bridge gone": (("ip", "link", "del", "cni0"), ["bridge cni0 does not exist"]),
    "bridge down": (("ip", "link", "set", "cni0", "down"), ["cni0 is down"]),
    "bridge's MTU": (("ip", "link", "set", "cni0", "mtu", "1300"), ["cni0", "1300", "1450"]),
    "bridge's MAC": (
        ("ip", "link", "set", "cni0", "address", "0a:00:00:00:00:98"),
        ["cni0 Mac", "0a:00:00:00:00:98"],
    ),
    "gateway address": (
        ("ip", "address", "del", "10.244.1.1/24", "dev", "cni0"),
        ["cni0 has not got the gateway address 10.244.1.1"],
    ),
    "IPv6 gateway address": (
        ("ip", "address", "del", "fd00:f1:0:1::1/64", "dev", "cni0"),
        ["cni0 has not got the gateway address fd00:f1:0:1::1"],
    ),
    "forwarding": (
        ("sysctl", "-qw", "net.ipv4.ip_forward=0"),
        ["forwarding of IPv4 is off"],
    ),
    "port taken off": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) nomaster"),
        ["is not a port of bridge cni0"],
    ),
    "port down": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) down"),
        ["Host veth veth", "is down"],
    ),
    "port's MAC": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) address 0a:00:00:00:00:97"),
        ["Host veth veth", "0a:00:00:00:00:97"],
    ),
    "port renamed": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) down name stray"),
        ["stray", "prevResult"],
    ),
    "hairpin": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) type bridge_slave hairpin off"),
        ["has hairpin off"],
    ),
    "alias": (
        ("sh", "-c", "ip link set $(ls /sys/class/net | grep veth) alias flannel:cbr0:other:eth0"),
        ["belongs to flannel:cbr0:other:eth0"],
    ),
    "lease gone": (
        ("rm", f"{LEASES}/cbr0/10.244.1.2", f"{LEASES}/cbr0/fd00:f1:0:1::2"),
        ["Failed to find address added by container cid-a"],
    ),
    "one lease gone": (("rm", f"{LEASES}/cbr0/10.244.1.2"), ["10.244.1.2"]),
    "lease of another": (
        ("sh", "-c", f"rm {LEASES}/cbr0/10.*; printf 'x\\r\\neth0' >{LEASES}/cbr0/10.244.1.2"),
        ["10.244.1.2", "leased to x eth0"],
    ),
    "masquerading": (("iptables", "-t", "nat", "-F"), ["10.244.1.2"]),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_difference_is_named(node: Node, name: str) -> None:
    command, words = DIFFERENCES[name]
    conf = attach(node)
    node.run(["sleep", "0"])
    node.run(command)
    message = told(node, conf)
    assert [word for word in words if word not in message] == [], message


def test_all_differences_are_named_at_once(node: Node) -> None:
    conf = attach(node)
    for name in ("pod's MTU", "IPv4 address", "bridge's MTU", "one lease gone", "hairpin"):
        node.run(DIFFERENCES[name][0])
    message = told(node, conf)
    for word in ("1460", "addr 10.244.1.2/24", "1300", "hairpin", "; "):
        assert word in message


def test_attachment_that_is_gone_altogether(node: Node) -> None:
    conf = attach(node)
    assert call(node, "DEL", conf=conf).status == 0
    message = told(node, conf)
    assert "Interface name eth0 not found" in message
    assert "Failed to find address" in message


@pytest.mark.parametrize("netns", ["/run/netns/none", "/run/flannel/subnet.env"])
def test_namespace_that_is_none(node: Node, netns: str) -> None:
    conf = attach(node)
    error = call(node, "CHECK", conf=conf, netns=netns).error
    assert error["code"] == 8
    assert netns in error["msg"]


def test_result_of_another_namespace(node: Node) -> None:
    conf = attach(node)
    conf["prevResult"]["interfaces"][2]["sandbox"] = "/run/netns/z"
    assert "/run/netns/z" in told(node, conf)


def test_result_is_required(node: Node) -> None:
    attach(node)
    error = call(node, "CHECK").error
    assert (error["code"], error["msg"]) == (7, "Required prevResult missing")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1"])
def test_conf_of_a_version_without_check(node: Node, version: str) -> None:
    node.write_subnet_env()
    error = call(node, "CHECK", netns="/proc/1/ns/net", conf=conf_with(cniVersion=version)).error
    assert (error["code"], error["msg"]) == (1, "config version does not allow CHECK")

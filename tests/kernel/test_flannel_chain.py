"""`flannel` as the first of a chain: Debian's next plugins take its result, CHECK takes theirs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    call,
    conf_with,
    delete,
    must_add,
    ping,
    remains,
    rules,
    with_result,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

GO = "/usr/lib/cni"
VERSIONS = ["0.4.0", "1.0.0"]  # what Debian's plugins know and CHECK is in

pytestmark = pytest.mark.skipif(not os.path.isdir(GO), reason=f"no {GO}")


@pytest.fixture(autouse=True)
def _subnet(node: Node) -> None:
    node.write_subnet_env()


def attach(node: Node, version: str = "1.0.0") -> tuple[dict[str, Any], dict[str, Any]]:
    """Attach pod `a`; the conf and the result."""
    conf = conf_with(cniVersion=version)
    return conf, must_add(node, conf=conf)


def chained(kind: str, previous: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Return the conf of a next plugin, with the result before it."""
    version = previous["cniVersion"]
    return {"cniVersion": version, "name": "cbr0", "type": kind, "prevResult": previous, **keys}


def add_next(node: Node, kind: str, previous: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """ADD of a next plugin."""
    conf = chained(kind, previous, **keys)
    return call(node, "ADD", conf=conf, plugin=f"{GO}/{kind}").result


def del_next(node: Node, kind: str, previous: dict[str, Any], **keys: Any) -> None:
    conf = chained(kind, previous, **keys)
    done = call(node, "DEL", conf=conf, plugin=f"{GO}/{kind}")
    assert done.status == 0, done


def check(node: Node, conf: dict[str, Any], result: dict[str, Any]) -> None:
    """CHECK, which must be content."""
    done = call(node, "CHECK", conf=with_result(conf, result))
    assert (done.status, done.stdout) == (0, ""), done


PORTS = {
    "capabilities": {"portMappings": True},
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
}


@pytest.mark.parametrize("version", ["0.3.1", *VERSIONS])
def test_portmap_finds_the_pods_address(node: Node, version: str) -> None:
    conf, result = attach(node, version)
    after = add_next(node, "portmap", result, **PORTS)
    assert after["ips"] == result["ips"]
    assert any("--to-destination 10.244.1.2:80" in rule for rule in rules(node))
    if version in VERSIONS:
        check(node, conf, after)
    del_next(node, "portmap", after, **PORTS)
    delete(node, conf=with_result(conf, after))
    assert not any("10.244.1.2" in rule for rule in rules(node))


@pytest.mark.parametrize("version", VERSIONS)
def test_tuning_changes_the_mac_and_check_takes_its_word(node: Node, version: str) -> None:
    conf, result = attach(node, version)
    mac = "0a:0b:0c:0d:0e:0f"
    after = add_next(node, "tuning", result, mac=mac)
    assert node.links("a")["eth0"]["address"] == mac
    assert after["interfaces"][2]["mac"] == mac
    check(node, conf, after)
    error = call(node, "CHECK", conf=with_result(conf, result)).error
    assert mac in error["msg"]
    del_next(node, "tuning", after, mac=mac)
    delete(node, conf=with_result(conf, after))
    assert remains(node) == {}


def test_tuning_changes_the_mtu_and_check_takes_its_word(node: Node) -> None:
    conf, result = attach(node)
    after = add_next(node, "tuning", result, mtu=1300)
    assert node.links("a")["eth0"]["mtu"] == 1300
    for interface in after["interfaces"]:  # this tuning plugin is older than the result's `mtu`
        interface.pop("mtu", None)
    check(node, conf, after)


@pytest.mark.parametrize("version", VERSIONS)
def test_firewall_accepts_the_pods_address(node: Node, version: str) -> None:
    conf, result = attach(node, version)
    keys = {"backend": "iptables"}
    after = add_next(node, "firewall", result, **keys)
    assert any(
        "-s 10.244.1.2/32" in rule and rule.startswith("-A CNI-FORWARD") for rule in rules(node)
    )
    check(node, conf, after)
    del_next(node, "firewall", after, **keys)
    delete(node, conf=with_result(conf, after))
    assert not any("10.244.1.2" in rule for rule in rules(node))


def test_firewall_finds_the_bridge_in_the_result(node: Node) -> None:
    """Its policy `same-bridge` reads the first interface's name."""
    _, result = attach(node)
    keys = {"backend": "iptables", "ingressPolicy": "same-bridge"}
    add_next(node, "firewall", result, **keys)
    isolating = [rule for rule in rules(node) if rule.startswith("-A CNI-ISOLATION-STAGE-1")]
    assert any("-i cni0" in rule for rule in isolating)


def test_bandwidth_finds_the_hosts_end(node: Node) -> None:
    conf, result = attach(node)
    keys = {"ingressRate": 1000000, "ingressBurst": 200000}
    keys |= {"egressRate": 1000000, "egressBurst": 200000}
    after = add_next(node, "bandwidth", result, **keys)
    veth = result["interfaces"][1]["name"]
    qdiscs = node.run(["tc", "qdisc", "show", "dev", veth]).stdout
    assert "tbf" in qdiscs
    assert after["interfaces"][3]["name"].startswith("bwp")
    check(node, conf, after)
    del_next(node, "bandwidth", after, **keys)
    delete(node, conf=with_result(conf, after))
    assert remains(node) == {}


def test_sbr_moves_the_routes_and_check_finds_them(node: Node) -> None:
    conf, result = attach(node)
    after = add_next(node, "sbr", result)
    assert node.routes("a", table="100")
    check(node, conf, after)
    delete(node, conf=with_result(conf, after))
    assert remains(node).keys() <= {"neighbours"}


def test_whole_chain_forward_and_back(node: Node) -> None:
    conf, result = attach(node)
    plugins: list[tuple[str, dict[str, Any]]] = [
        ("portmap", PORTS),
        ("tuning", {"mac": "0a:0b:0c:0d:0e:0f"}),
        ("firewall", {"backend": "iptables"}),
    ]
    for kind, keys in plugins:
        result = add_next(node, kind, result, **keys)
    assert ping(node, "a", "10.244.1.1")
    check(node, conf, result)
    for kind, keys in reversed(plugins):
        del_next(node, kind, result, **keys)
    delete(node, conf=with_result(conf, result))
    assert not any("10.244.1.2" in rule for rule in rules(node))
    assert set(node.links()) == {"lo", "cni0"}


def test_del_without_result_as_the_old_versions_have_it(node: Node) -> None:
    conf, result = attach(node, "0.3.1")
    add_next(node, "tuning", result, mac="0a:0b:0c:0d:0e:0f")
    delete(node, conf=conf)
    assert remains(node) == {}


def test_chain_of_kube_flannel(node: Node) -> None:
    """The conflist that its manifest installs, in its version."""
    conf = {**CONF, "cniVersion": "0.3.1"}
    result = must_add(node, conf=conf)
    after = add_next(node, "portmap", result, capabilities={"portMappings": True})
    assert after == result
    del_next(node, "portmap", after, capabilities={"portMappings": True})
    delete(node, conf=conf)
    assert remains(node) == {}

"""STATUS of `flannel`: would an ADD succeed? And ADD before flanneld has written its file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    LEASES,
    SUBNET_ENV,
    add,
    call,
    conf_with,
    delete,
    forge_plugin,
    must_add,
    remains,
    running,
    snapshot,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

SMALL = conf_with(ipam={"rangeEnd": "10.244.1.3"})


def unavailable(node: Node, **options: Any) -> dict[str, Any]:
    """STATUS, which must say 50 and change nothing."""
    before = snapshot(node)
    error = call(node, "STATUS", **options).error
    assert error["code"] == 50, error
    assert snapshot(node) == before
    return error


def test_node_that_is_ready(node: Node) -> None:
    node.write_subnet_env()
    done = call(node, "STATUS")
    assert (done.status, done.stdout, done.stderr) == (0, "", "")


def test_node_with_pods_is_ready(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    assert call(node, "STATUS").stdout == ""


def test_subnet_env_is_missing(node: Node) -> None:
    error = unavailable(node)
    assert SUBNET_ENV in error["msg"]
    assert "flanneld is not running" in error["details"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FLANNEL_NETWORK\n", ":1: line "),
        ("", "is missing FLANNEL_NETWORK"),
        ("FLANNEL_NETWORK=10.244.0.0/16\n", "is missing FLANNEL_SUBNET"),
    ],
    ids=["no equals sign", "empty", "half"],
)
def test_subnet_env_is_broken(node: Node, text: str, words: str) -> None:
    node.write(SUBNET_ENV, text)
    assert words in unavailable(node)["msg"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", "10.244.0.0"),
        ("network", "10.244.0.0/33"),
        ("subnet", "10.244.1.1"),
        ("subnet", "10.245.1.1/24"),
        ("subnet", "fd00::1/64"),
        ("mtu", "0"),
        ("mtu", "65536"),
        ("mtu", "14x0"),
        ("ipmasq", "TRUE"),
        ("ipmasq", "1"),
        ("ipv6_subnet", "fd00::1/64"),
        ("ipv6_network", "fd00::/48"),
    ],
)
def test_value_of_subnet_env_is_wrong(node: Node, key: str, value: str) -> None:
    node.write_subnet_env(**{key: value})
    message = unavailable(node)["msg"]
    assert f"{SUBNET_ENV}:" in message
    assert f"FLANNEL_{key.upper()} " in message
    assert value in message


def test_bridge_of_another_subnet_with_ports(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    node.write_subnet_env(subnet="10.244.9.1/24")
    error = unavailable(node)
    assert '"cni0" already has an IP address different from 10.244.9.1/24' in error["msg"]


def test_bridge_of_another_subnet_without_ports(node: Node) -> None:
    """The next ADD moves it."""
    node.write_subnet_env()
    must_add(node)
    delete(node)
    node.write_subnet_env(subnet="10.244.9.1/24")
    assert call(node, "STATUS").status == 0


def test_link_that_is_no_bridge_has_its_name(node: Node) -> None:
    node.write_subnet_env()
    node.run(["ip", "link", "add", "cni0", "type", "veth", "peer", "name", "other"])
    assert "not a bridge" in unavailable(node)["msg"]


def test_pool_is_empty(node: Node) -> None:
    node.write_subnet_env()
    must_add(node, "a", conf=SMALL)
    assert call(node, "STATUS", conf=SMALL).status == 0
    must_add(node, "b", conf=SMALL)
    message = unavailable(node, conf=SMALL)["msg"]
    assert message == "no IP addresses available in range set: 10.244.1.1-10.244.1.3"


def test_pool_that_would_heal_itself_is_not_empty(node: Node) -> None:
    node.write_subnet_env()
    for pod in ("a", "b"):
        must_add(node, pod, conf=SMALL)
    node.path(f"{LEASES}/cbr0/10.244.1.2").write_bytes(b"")
    assert call(node, "STATUS", conf=SMALL).status == 0


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_conf_of_a_version_without_status(node: Node, version: str) -> None:
    error = call(node, "STATUS", conf=conf_with(cniVersion=version)).error
    assert (error["code"], error["msg"]) == (1, "config version does not allow STATUS")


def test_foreign_ipam_is_asked(node: Node) -> None:
    node.write_subnet_env()
    forge_plugin(node, "full", 'cat >/dev/null; echo \'{"code": 50, "msg": "full"}\'; exit 1')
    assert unavailable(node, conf=conf_with(ipam={"type": "full"}))["msg"] == "full"


# --------------------------------------------------------------------------- ADD without subnet.env


def test_add_without_the_file_fails_at_once_if_told_not_to_wait(node: Node) -> None:
    error = add(node, conf=conf_with(subnetFileWait=0)).error
    assert error["code"] == 11
    assert error["msg"] == (
        f"failed to load flannel 'subnet.env' file: open {SUBNET_ENV}: no such file or directory. "
        "Check the flannel pod log for this node."
    )
    assert remains(node) == {}


def test_add_gives_up_waiting_after_a_while(node: Node) -> None:
    assert add(node, conf=conf_with(subnetFileWait=0.2)).error["code"] == 11


def test_add_waits_for_the_file_to_appear(node: Node) -> None:
    """The daemon writes it when it has seen the ADD wait."""
    node.write_subnet_env("/run/later.env")
    script = f"""
    until grep -qs . /run/started; do sleep 0.01; done
    sleep 0.2
    mv /run/later.env {SUBNET_ENV}
    """
    with running(node, "sh", "-c", script):
        node.write("/run/started", "now")
        result = must_add(node, conf=conf_with(subnetFileWait=30))
    assert result["ips"][0]["address"] == "10.244.1.2/24"


def test_add_does_not_wait_for_a_broken_file(node: Node) -> None:
    node.write_subnet_env(mtu="0")
    error = add(node, conf=conf_with(subnetFileWait=60)).error
    assert error["code"] == 7
    assert f'{SUBNET_ENV}:3: FLANNEL_MTU "0" is not between 1 and 65535' in error["msg"]
    assert remains(node) == {}


def test_reason_names_the_missing_folder(node: Node) -> None:
    shutil.rmtree(node.path("/run/flannel"))
    details = add(node, conf=conf_with(subnetFileWait=0)).error["details"]
    assert "/run/flannel does not exist" in details


def test_reason_names_the_daemon_that_runs(node: Node) -> None:
    node.run(["sh", "-c", "cp $(command -v sleep) /run/flanneld"])
    with running(node, "/run/flanneld", "60") as daemon:
        details = add(node, conf=conf_with(subnetFileWait=0)).error["details"]
    assert f"flanneld runs (process {daemon.pid})" in details

"""Bad input: each with its code and a message that names the value; nothing changed or lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    LAST_RESERVED,
    call,
    conf_with,
    must_add,
    refused,
    snapshot,
)
from tests.kernel.conftest import Node, may_make_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


DEEP = b"[" * 500_000 + b"]" * 500_000


@pytest.fixture(scope="module")
def shared(plugins: Path) -> Iterator[Node]:
    """One node for all: nothing may change it. A pod is attached to it, and `a` is to be."""
    if not may_make_namespaces():
        pytest.skip("needs root, or user namespaces")
    node = Node(plugins)
    node.write_subnet_env(ipmasq="false")
    must_add(node, "old")
    node.add_pod("a")
    yield node
    node.close()


@pytest.fixture
def node(shared: Node) -> Node:
    return shared


def raw(**changes: Any) -> bytes:
    return json.dumps(conf_with(**changes)).encode()


# -------------------------------------------------------------------------------------------- stdin

DOCUMENTS = {
    "empty": (b"", "unexpected end of JSON input"),
    "blanks": (b" \n", "unexpected end of JSON input"),
    "half": (raw()[:-20], "unexpected end of JSON input"),
    "string": (b'"cbr0"', '"cbr0"'),
    "list": (b"[1,2]", "[1,2]"),
    "null": (b"null", "null"),
    "trailing text": (raw() + b" x", "x"),
    "two documents": (raw() + raw(), "{"),
    "no JSON": (b"cniVersion: 1.1.0\n", "c"),
    "NaN": (raw()[:-1] + b',"mtu":NaN}', "N"),
    "invalid UTF-8": (raw(name="cbr0").replace(b"cbr0", b"c\xffr0"), "UTF-8"),
    "1 MB of nesting": (DEEP, "exceeded max depth"),
    "1 MB of nesting within": (raw()[:-1] + b',"x":' + DEEP + b"}", "exceeded max depth"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_stdin(node: Node, name: str) -> None:
    document, words = DOCUMENTS[name]
    error = refused(node, conf=document)
    assert error["code"] == 6
    assert words in error["msg"]


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_stdin_of_the_other_verbs(node: Node, command: str) -> None:
    assert refused(node, command, raw()[:-20])["code"] == 6


# ---------------------------------------------------------------------------------- names and verbs


@pytest.mark.parametrize(
    "name",
    ["a/b", "a\nb", "cbr0\n", "x" * 300, "-a", ".hidden", "..", "a b", "ä", "", 7, None],
    ids=ascii,
)
def test_network_name(node: Node, name: object) -> None:
    error = refused(node, conf={**CONF, "name": name})
    assert error["code"] == 7
    shown = name if isinstance(name, str) and name else ""
    assert "name" in error["msg"]
    assert shown in f"{error['msg']} {error.get('details')}"


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("ifname", [".", "..", "x" * 16, "ä" * 8, "a b", "a/b", "a:b", "a\tb"])
def test_interface_name(node: Node, ifname: str, command: str) -> None:
    error = refused(node, command, ifname=ifname)
    assert error["code"] == 4
    assert "interface name" in error["msg"]


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("container_id", ["a/b", "../x", "-a", "a b", "a\nb", "ä"], ids=ascii)
def test_container_id(node: Node, container_id: str, command: str) -> None:
    error = refused(node, command, container_id=container_id)
    assert (error["code"], error["msg"]) == (4, "invalid characters in containerID")
    assert error["details"] == container_id


def test_container_id_that_no_file_name_can_hold(node: Node) -> None:
    error = refused(node, container_id="x" * 300)
    assert error["code"] == 4
    assert "300 bytes" in error["msg"]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
        ("GC", "CNI_PATH"),
    ],
)
@pytest.mark.parametrize("value", ["", None], ids=["empty", "unset"])
def test_variable_is_missing(node: Node, command: str, missing: str, value: str | None) -> None:
    error = refused(node, command, env={missing: value})
    assert error["code"] == 4
    assert error["msg"] == f"required env variables [{missing}] missing"


@pytest.mark.parametrize("command", ["FOO", "add", "Del", "ADD "])
def test_unknown_command(node: Node, command: str) -> None:
    error = refused(node, command)
    assert (error["code"], error["msg"]) == (4, f"unknown CNI_COMMAND: {command}")


@pytest.mark.parametrize("text", ["IP", "IP=1;", "A=b=c", ";", "IP=1.2.3"])
def test_cni_args(node: Node, text: str) -> None:
    error = refused(node, env={"CNI_ARGS": text})
    assert error["code"] == 4
    assert error["msg"].startswith("ARGS: ")


def test_cni_args_that_nobody_knows(node: Node) -> None:
    error = refused(node, env={"CNI_ARGS": "K8S_POD_NAME=x"})
    assert error["code"] == 4
    assert error["msg"] == 'ARGS: unknown args ["K8S_POD_NAME=x"]'


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize(
    ("version", "codes", "words"),
    [
        ("9.9.9", (1,), "9.9.9"),
        ("1.0", (1,), "1.0"),
        ("x.y.z", (1, 6), "x"),
        ("1.1.0 ", (1, 6), "1.1.0 "),
    ],
)
def test_version(
    node: Node, command: str, version: str, codes: tuple[int, ...], words: str
) -> None:
    error = refused(node, command, conf={**CONF, "cniVersion": version})
    assert error["code"] in codes
    assert words in f"{error['msg']} {error.get('details')}" or "does not allow" in error["msg"]


@pytest.mark.parametrize("command", ["ADD", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("version", [1, []])
def test_version_that_is_no_text(node: Node, command: str, version: object) -> None:
    """DEL takes it: see the conformance cases of a conf that was broken after the ADD."""
    error = refused(node, command, conf={**CONF, "cniVersion": version})
    assert error["code"] == 6
    assert json.dumps(version) in error["msg"]


def test_empty_version_is_the_oldest(node: Node) -> None:
    """No error: confs without a version are older than the key."""
    before = snapshot(node, "a")
    assert call(node, "ADD", conf=conf_with(cniVersion="")).result["cniVersion"] == "0.1.0"
    assert call(node, "DEL", conf=conf_with(cniVersion="")).status == 0
    before["files"][LAST_RESERVED] = snapshot(node, "a")["files"][LAST_RESERVED]
    assert snapshot(node, "a") == before


# ------------------------------------------------------------------------------------ the namespace


@pytest.mark.parametrize(
    "netns", ["/run/netns/none", "/run/flannel/subnet.env", "/run/netns", "/dev/null", "a", "/"]
)
def test_namespace_that_is_none(node: Node, netns: str) -> None:
    error = refused(node, netns=netns)
    assert error["code"] == 8
    assert f"'{netns}'" in error["msg"]


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("netns", ["/proc/self/ns/net", "/proc/thread-self/ns/net"])
def test_own_namespace(node: Node, netns: str, command: str) -> None:
    """DEL with it would remove an interface of the node."""
    ifname = next(name for name in node.links() if name.startswith("veth"))
    error = refused(node, command, netns=netns, ifname=ifname)
    assert error["code"] == 8
    assert error["msg"] == "plugin's netns and netns from CNI_NETNS should not be the same"
    assert netns in error["details"]


def test_namespace_of_another_kind(node: Node) -> None:
    error = refused(node, netns="/proc/self/ns/uts")
    assert error["code"] in (8, 101)


# ----------------------------------------------------------------------------------------- the conf

CONFS: dict[str, tuple[dict[str, Any], str]] = {
    "delegate is a string": ({"delegate": "bridge"}, '"bridge"'),
    "delegate is a list": ({"delegate": []}, "[]"),
    "delegate.type is a number": ({"delegate": {"type": 7}}, "7"),
    "delegate.type is empty": ({"delegate": {"type": ""}}, "(string) 'type' field"),
    "delegate.name": ({"delegate": {"name": "x"}}, "must not have 'name' field"),
    "delegate.ipam": ({"delegate": {"ipam": {}}}, "must not have 'ipam' field"),
    "delegate is flannel": ({"delegate": {"type": "flannel"}}, "flannel itself"),
    "ipam is a string": ({"ipam": "host-local"}, '"host-local"'),
    "ipam is a list": ({"ipam": [1]}, "[1]"),
    "ipam.type is a number": ({"ipam": {"type": 7}}, "7"),
    "ipam.subnet": ({"ipam": {"subnet": "10.9.0.0/24"}}, "10.9.0.0/24"),
    "ipam.routes is an object": ({"ipam": {"routes": {"dst": "x"}}}, '{"dst":"x"}'),
    "ipam.routes: no CIDR": ({"ipam": {"routes": [{"dst": "10.0.0.0"}]}}, "10.0.0.0"),
    "ipam.rangeStart: no address": ({"ipam": {"rangeStart": "10.244.1"}}, "10.244.1"),
    "ipam.rangeStart: elsewhere": ({"ipam": {"rangeStart": "10.9.0.1"}}, "10.9.0.1"),
    "ipam.rangeEnd: another family": ({"ipam": {"rangeEnd": "fd00::1"}}, "fd00::1"),
    "ipam.exclude: no address": ({"ipam": {"exclude": ["x"]}}, "x"),
    "ipam.resolvConf: a number": ({"ipam": {"resolvConf": 1}}, "1"),
    "ipam.lockTimeout": ({"ipam": {"lockTimeout": "1s"}}, '"1s"'),
    "subnetFile": ({"subnetFile": 1}, "1"),
    "subnetFileWait": ({"subnetFileWait": -1}, "-1"),
    "dataDir": ({"dataDir": ["x"]}, '["x"]'),
    "runtimeConfig": ({"runtimeConfig": "x"}, '"x"'),
    "args": ({"args": 3}, "3"),
    "dns": ({"dns": "10.96.0.10"}, "10.96.0.10"),
    "requested address": ({"args": {"cni": {"ips": ["10.244"]}}}, "10.244"),
    "requested MAC": ({"runtimeConfig": {"mac": "00:11:22"}}, "00:11:22"),
    "multicast MAC": ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "01:00:5e:00:00:01"),
    "mtu -1": ({"delegate": {"mtu": -1}}, "-1"),
    "mtu is a string": ({"delegate": {"mtu": "1500"}}, '"1500"'),
    "mtu 1e9": ({"delegate": {"mtu": 1e9}}, "1000000000"),
    "mtu 1000000000": ({"delegate": {"mtu": 10**9}}, "1000000000"),
    "mtu 1500.5": ({"delegate": {"mtu": 1500.5}}, "1500.5"),
    "vlan 4095": ({"delegate": {"vlan": 4095}}, "invalid VLAN ID 4095"),
    "vlan -1": ({"delegate": {"vlan": -1}}, "invalid VLAN ID -1"),
    "vlanTrunk": ({"delegate": {"vlanTrunk": [{"minID": 5}]}}, "maxID is missing"),
    "hairpin and promiscuous": (
        {"delegate": {"hairpinMode": True, "promiscMode": True}},
        "cannot set hairpin mode and promiscuous mode at the same time",
    ),
    "IPAM without an interface": (
        {"delegate": {"disableContainerInterface": True}},
        "cannot use IPAM when DisableContainerInterface flag is set",
    ),
    "hairpinMode is a string": ({"delegate": {"hairpinMode": "yes"}}, '"yes"'),
    "ipMasqBackend": ({"delegate": {"ipMasqBackend": "pf"}}, 'unknown ipmasq backend "pf"'),
    "bridge is a number": ({"delegate": {"bridge": 1}}, "1"),
    "bridge's name is long": ({"delegate": {"bridge": "b" * 16}}, "b" * 16),
    "bridge's name has a slash": ({"delegate": {"bridge": "a/b"}}, "a/b"),
}


@pytest.mark.parametrize("name", CONFS)
def test_conf(node: Node, name: str) -> None:
    changes, words = CONFS[name]
    error = refused(node, conf=conf_with(**changes))
    assert error["code"] == 7, error
    assert words in error["msg"], error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": {"cni": {"ips": ["10.244.1.1"]}}}, "requested ip 10.244.1.1 is subnet's gateway"),
        ({"args": {"cni": {"ips": ["10.244.1.2"]}}}, "requested IP address 10.244.1.2"),
        ({"args": {"cni": {"ips": ["10.9.9.9"]}}}, "10.9.9.9"),
    ],
    ids=["gateway", "taken", "elsewhere"],
)
def test_requested_address_cannot_be_had(node: Node, changes: dict[str, Any], words: str) -> None:
    error = refused(node, conf=conf_with(**changes))
    assert error["code"] == 103
    assert words in error["msg"]


def test_range_without_an_address(node: Node) -> None:
    error = refused(node, conf=conf_with(ipam={"rangeEnd": "10.244.1.2"}))
    assert error["code"] == 102
    assert "no IP addresses available in range set: 10.244.1.1-10.244.1.2" in error["msg"]


@pytest.mark.parametrize("kind", ["veth", "lo"])
def test_bridge_is_another_kind_of_interface(node: Node, kind: str) -> None:
    name = "lo"
    if kind == "veth":
        name = "uplink"
        node.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "wire"])
    error = refused(node, conf=conf_with(delegate={"bridge": name}))
    assert error["code"] == 104
    assert f'"{name}" already exists but is not a bridge' in error["msg"]


@pytest.mark.parametrize("vlan", [{"vlan": 7}, {"vlanTrunk": [{"id": 7}]}])
def test_vlans_on_a_bridge_that_does_not_filter(node: Node, vlan: dict[str, Any]) -> None:
    error = refused(node, conf=conf_with(delegate=vlan))
    assert error["code"] == 104
    assert '"cni0" for VLANs' in error["msg"]

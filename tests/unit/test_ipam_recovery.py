"""Leases that vanish while their pods live come back; all others stay away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

import pytest

from cni.cidr import parse_prefix
from cni.errors import ADDRESS_TAKEN
from ipam import recovery
from netlink.inet import InterfaceAddress
from netlink.nlmsg import NetlinkError
from tests.unit.ipam_node import Node, refused

if TYPE_CHECKING:
    from pathlib import Path

OWN = "/proc/self/ns/net"


class Link:
    """A veth of the host."""

    def __init__(self, alias: str, nsid: int | None, link: int) -> None:
        self.alias = alias
        self.link_netnsid = nsid
        self.link = link


class Kernel:
    """What the kernel has in every namespace that is asked, and behind veths."""

    def __init__(self) -> None:
        self.here: list[str] = []
        self.behind: list[tuple[Link, list[str]]] = []
        self.refuses = False

    def __call__(self, netns_fd: int = -1) -> Kernel:
        del netns_fd
        if self.refuses:
            raise NetlinkError(1)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def links(self, *, kind: str) -> list[Link]:
        assert kind == "veth"
        return [link for link, _ in self.behind]

    def addresses(self, index: int = 0, nsid: int | None = None) -> list[InterfaceAddress]:
        found = self.here if nsid is None else self.behind[index][1]
        return [InterfaceAddress(1, parse_prefix(text), 0, 0, nsid) for text in found]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(recovery, "Handle", kernel)
    return kernel


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two pods in the own namespace, which has the first one's address; their leases are gone."""
    node = Node(tmp_path)
    for container_id in ("c1", "c2"):
        node.add(container_id, netns=OWN)
    return node


def vanish(node: Node, *, index: bool = False) -> None:
    for path in node.leases.iterdir():
        path.unlink()
    if index:
        for path in node.index.iterdir():
            path.unlink()
        node.index.rmdir()


def test_the_index_knows_who_lives(node: Node, kernel: Kernel) -> None:
    kernel.here = ["10.5.0.2/24"]
    vanish(node)
    assert node.add("c3") == ["10.5.0.3"]  # the second one has lost its address
    assert node.files() == {"10.5.0.2": "c1\r\neth0", "10.5.0.3": "c3\r\neth0"}
    assert node.notes == [
        "restored 10.5.0.2 of c1 eth0: the pod has it, and its lease had vanished"
    ]
    assert node.entries()["c1:eth0"].endswith(f" {OWN}")  # what is known of it is kept
    assert set(node.entries()) == {"c1:eth0", "c3:eth0"}


def test_leases_that_another_program_has_deleted_stay_away(node: Node, kernel: Kernel) -> None:
    """The namespaces are there, and nobody has an address: no veth is asked."""
    kernel.behind = [(Link("", 0, 0), ["10.5.0.2/24"])]
    (node.leases / "10.5.0.2").unlink()
    assert node.add("c3") == ["10.5.0.4"]
    assert set(node.entries()) == {"c2:eth0", "c3:eth0"}
    assert node.notes == []


def test_another_namespace_at_the_path_proves_nothing(node: Node, kernel: Kernel) -> None:
    kernel.here = ["10.5.0.2/24"]
    entry = node.index / "c1:eth0"
    entry.unlink()
    entry.symlink_to(f"10.5.0.2 4:1 {OWN}")
    vanish(node)
    assert node.add("c3") == ["10.5.0.2"]


def test_veths_know_their_holders(node: Node, kernel: Kernel) -> None:
    vanish(node, index=True)
    kernel.behind = [
        (Link("flannel:net:c1:eth0", 0, 0), ["10.5.0.2/24", "fe80::1/64"]),
        (Link("flannel:net:c2:net1 (adding)", 1, 1), ["10.5.0.3/24"]),
        (Link("flannel:other:c9:eth0", 2, 2), ["10.5.0.4/24"]),  # another network's
        (Link("", None, 3), ["10.5.0.4/24"]),  # its other end is here
        (Link("my uplink", 4, 4), ["10.5.0.5/24", "192.0.2.1/24"]),
    ]
    assert node.add("c3") == ["10.5.0.4"]
    assert node.add("c4") == ["10.5.0.6"]
    refused(ADDRESS_TAKEN, node.add, "c5", runtimeConfig={"ips": ["10.5.0.5"]})
    assert node.files() == {
        "10.5.0.2": "c1\r\neth0",
        "10.5.0.3": "c2\r\nnet1",
        "10.5.0.4": "c3\r\neth0",
        "10.5.0.6": "c4\r\neth0",
    }
    assert node.entries()[":"] == "10.5.0.5"
    kernel.behind.pop()
    assert node.add("c5", runtimeConfig={"ips": ["10.5.0.5"]}) == ["10.5.0.5"]
    assert ":" not in node.entries()
    kernel.behind.append((Link("", 5, 5), ["10.5.0.7/24"]))  # nobody looks any more
    assert node.add("c6") == ["10.5.0.7"]


def test_the_runtime_s_cache_knows_who_lives(node: Node, kernel: Kernel) -> None:
    vanish(node, index=True)
    kernel.here = ["10.5.0.2/24", "10.5.0.3/24", "10.5.0.9/24"]
    cached = {"networkName": "net", "containerId": "c1", "ifName": "eth0", "netns": OWN}
    for name, changes in (
        ("net-c1-eth0", {"result": {"ips": [{"address": "10.5.0.2/24"}]}}),
        ("net-c2-eth0", {"containerId": "c2", "result": {"ip4": {"ip": "10.5.0.3/24"}}}),
        (
            "net-2-c9-eth0",
            {"networkName": "net-2", "result": {"ips": [{"address": "10.5.0.9/24"}]}},
        ),
        ("net-c7-eth0", {"result": {"ips": [5]}}),
        ("net-c8-eth0", {"result": None}),
    ):
        (node.results / name).write_text(json.dumps({**cached, **changes}))
    (node.results / "net-c6-eth0").write_text("{")
    assert node.add("c3") == ["10.5.0.4"]
    assert node.files()["10.5.0.2"] == "c1\r\neth0"
    assert node.files()["10.5.0.3"] == "c2\r\neth0"


def test_without_rights_an_add_goes_on(node: Node, kernel: Kernel) -> None:
    vanish(node, index=True)
    kernel.refuses = True
    assert node.add("c3") == ["10.5.0.2"]
    assert len(node.notes) == 1
    assert node.notes[0].startswith("could not ask the kernel for the addresses of pods: ")


@pytest.mark.parametrize("verb", ["delete", "check", "gc"])
def test_no_other_verb_forgets_what_the_index_knows(node: Node, kernel: Kernel, verb: str) -> None:
    kernel.here = ["10.5.0.2/24"]
    vanish(node)
    if verb == "delete":
        node.delete("c9")
    elif verb == "gc":
        node.gc(absent=True)
    else:
        refused(106, node.check, "c2")
    assert node.add("c3") == ["10.5.0.3"]
    assert node.files()["10.5.0.2"] == "c1\r\neth0"


def test_a_lease_that_was_emptied_says_its_holder_again(node: Node, kernel: Kernel) -> None:
    """The folder's time does not tell of it: the index is trusted all the while."""
    kernel.here = ["10.5.0.2/24"]
    for name in ("10.5.0.2", "10.5.0.3"):
        (node.leases / name).write_bytes(b"")
    (node.leases / "last_reserved_ip.0").write_bytes(b"10.5.0.1")
    assert node.add("c3") == ["10.5.0.3"]
    assert node.files() == {"10.5.0.2": "c1\r\neth0", "10.5.0.3": "c3\r\neth0"}


def test_an_address_that_is_leased_is_not_kept_for_nobody(tmp_path: Path, kernel: Kernel) -> None:
    """A lease of Go's, of which no index tells, and its veth, of which nobody knows whose it is."""
    node = Node(tmp_path)
    node.put("10.5.0.2", "c1\r\neth0")
    kernel.behind = [(Link("", 0, 0), ["10.5.0.2/24"])]
    assert node.add("c3") == ["10.5.0.3"]
    assert set(node.entries()) == {"c1:eth0", "c3:eth0"}
    node.delete("c1")
    assert node.add("c4", runtimeConfig={"ips": ["10.5.0.2"]}) == ["10.5.0.2"]


def test_a_failed_add_takes_no_restored_lease_back(node: Node, kernel: Kernel) -> None:
    kernel.here = ["10.5.0.2/24"]
    vanish(node)
    refused(ADDRESS_TAKEN, node.add, "c3", runtimeConfig={"ips": ["10.5.0.2"]})
    assert node.files() == {"10.5.0.2": "c1\r\neth0"}
    node.delete("c1")
    assert node.files() == {}

"""ADD of host-local against a folder of leases."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.ipam_node import DUAL, SMALL, YEAR_S, Node, refused

if TYPE_CHECKING:
    from pathlib import Path


def test_add_writes_what_go_writes(tmp_path: Path) -> None:
    node = Node(tmp_path, **DUAL)
    assert node.result(ipam={"routes": [{"dst": "0.0.0.0/0"}]}) == {
        "ips": [
            {"address": "10.5.0.2/29", "gateway": "10.5.0.1"},
            {"address": "fd00::2/126", "gateway": "fd00::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {},
    }
    assert node.files() == {"10.5.0.2": "c1\r\neth0", "fd00::2": "c1\r\neth0"}
    assert (node.leases / "last_reserved_ip.0").read_text() == "10.5.0.2"
    assert (node.leases / "last_reserved_ip.1").read_text() == "fd00::2"
    assert (node.leases / "10.5.0.2").stat().st_mode & 0o777 == 0o600
    assert (node.leases / "lock").stat().st_mode & 0o777 == 0o750
    assert node.leases.stat().st_mode & 0o777 == 0o755


def test_round_robin(tmp_path: Path) -> None:
    node = Node(tmp_path, **SMALL)
    assert [node.add(f"c{n}") for n in range(3)] == [["10.5.0.2"], ["10.5.0.3"], ["10.5.0.4"]]
    node.delete("c0")
    assert [node.add(f"d{n}")[0][-1] for n in range(3)] == ["5", "6", "2"]


def test_a_shorter_last_reserved_ip(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("last_reserved_ip.0", "10.5.0.254")
    assert node.add() == ["10.5.0.2"]
    assert (node.leases / "last_reserved_ip.0").read_bytes() == b"10.5.0.2"


@pytest.mark.parametrize("content", ["", "x", "10.5.0.99\0", "192.0.2.1", "fd00::1"])
def test_a_useless_last_reserved_ip(tmp_path: Path, content: str) -> None:
    node = Node(tmp_path)
    node.put("last_reserved_ip.0", content)
    assert node.add() == (["10.5.0.100"] if "99" in content else ["10.5.0.2"])


def test_a_full_pool(tmp_path: Path) -> None:
    node = Node(tmp_path, **SMALL)
    for n in range(5):
        node.add(f"c{n}")
    before = node.files()
    error = refused(102, node.add, "one-more")
    assert error.msg == (
        "failed to allocate for range 0: no IP addresses available in range set: 10.5.0.1-10.5.0.6"
    )
    assert str(node.leases) in error.details
    assert node.files() == before


def test_a_later_set_that_is_full_frees_the_earlier_ones(tmp_path: Path) -> None:
    node = Node(tmp_path, **DUAL)
    node.add("c1")
    node.add("c2")
    error = refused(102, node.add, "c3")
    assert error.msg.startswith("failed to allocate for range 1: ")
    assert sorted(node.files()) == ["10.5.0.2", "10.5.0.3", "fd00::2", "fd00::3"]
    node.delete("c1")
    assert node.add("c3") == ["10.5.0.4", "fd00::2"]


def test_excluded_addresses(tmp_path: Path) -> None:
    node = Node(tmp_path, **SMALL, exclude=["10.5.0.2", "10.5.0.4/31"])
    assert [node.add("c1"), node.add("c2")] == [["10.5.0.3"], ["10.5.0.6"]]
    refused(102, node.add, "c3")
    error = refused(103, node.add, "c3", cni_args="IP=10.5.0.5")
    assert "requested ip 10.5.0.5 is excluded" in error.msg


def test_requested_addresses(tmp_path: Path) -> None:
    node = Node(tmp_path, **DUAL)
    args = {"cni": {"ips": ["fd00::3", "10.5.0.5"]}}
    assert node.add(args=args) == ["10.5.0.5", "fd00::3"]
    taken = refused(103, node.add, "c2", runtimeConfig={"ips": ["10.5.0.5/24"]})
    assert taken.msg == (
        "failed to allocate for range 0: "
        "requested IP address 10.5.0.5 is not available in range set 10.5.0.1-10.5.0.6"
    )
    assert "c1 eth0 holds it" in taken.details
    gateway = refused(103, node.add, "c2", cni_args="IP=10.5.0.1")
    assert (
        gateway.msg == "failed to allocate for range 0: requested ip 10.5.0.1 is subnet's gateway"
    )
    unfulfilled = refused(103, node.add, "c2", cni_args="IP=10.6.0.2")
    assert unfulfilled.msg == "failed to allocate all requested IPs: 10.6.0.2"
    assert sorted(node.files()) == ["10.5.0.5", "fd00::3"]


def test_the_same_attachment_twice(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("q")
    error = refused(103, node.add, "q")
    assert error.msg.endswith(
        "10.5.0.2 has been allocated to q, duplicate allocation is not allowed"
    )
    assert str(node.leases / "10.5.0.2") in error.details
    refused(103, node.add, "q", cni_args="IP=10.5.0.9")
    assert node.add("q", "net1") == ["10.5.0.3"]
    assert sorted(node.files()) == ["10.5.0.2", "10.5.0.3"]


def test_the_same_attachment_in_the_old_format(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("10.5.0.9", "q")
    assert "10.5.0.9 has been allocated to q" in refused(103, node.add, "q").msg


def test_the_same_attachment_whose_holder_is_gone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    netns = tmp_path / "netns"
    netns.symlink_to("/proc/self/ns/net")
    node.add("q", netns=str(netns))
    refused(103, node.add, "q", netns=str(netns))
    then = node.leases.stat().st_mtime - YEAR_S
    os.utime(node.leases / "10.5.0.2", (then, then))
    refused(103, node.add, "q", netns=str(netns))  # an old lease, and a living namespace
    (node.index / "q:eth0").unlink()
    (node.index / "q:eth0").symlink_to(f"10.5.0.2 {netns.stat().st_dev}:1 {tmp_path}/gone")
    assert node.add("q") == ["10.5.0.3"]
    assert sorted(node.files()) == ["10.5.0.3"]
    assert node.notes == ["took back 10.5.0.2 from q eth0: the lease is older than this boot"]


def test_an_empty_lease_is_free(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.5.0.0/30"}]])
    node.put("10.5.0.2", "")
    assert node.add() == ["10.5.0.2"]
    assert node.files() == {"10.5.0.2": "c1\r\neth0"}


def test_an_empty_lease_far_behind_many_taken_ones(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for n in range(2, 255):
        node.put(f"10.5.0.{n}", "" if n == 200 else f"c{n}\r\neth0")
    assert node.add("new") == ["10.5.0.200"]


def test_many_taken_ones_in_a_row(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for n in range(2, 254):
        node.put(f"10.5.0.{n}", f"c{n}\r\neth0")
    assert node.add("new") == ["10.5.0.254"]


@pytest.mark.parametrize("content", ["a/b\r\neth0", "\xff\xfe", "a b c", "c\r\ne\r\nf", "x" * 5000])
def test_a_corrupt_lease_is_taken_by_nobody(tmp_path: Path, content: str) -> None:
    node = Node(tmp_path)
    node.put("10.5.0.2", content)
    assert node.add() == ["10.5.0.3"]
    node.delete()
    assert node.files() == {"10.5.0.2": content}


def test_strangers_in_the_directory(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("readme", "c1\r\neth0")
    (node.leases / "10.5.0.2").mkdir()
    (node.leases / "10.5.0.3").symlink_to("nowhere")
    os.mkfifo(node.leases / "10.5.0.4")
    assert node.add() == ["10.5.0.5"]
    node.delete()
    node.gc()
    assert len(os.listdir(node.leases)) == 6  # and lock, last_reserved_ip.0


def test_resolv_conf(tmp_path: Path) -> None:
    node = Node(tmp_path)
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# c\n; d\nnameserver 1.1.1.1\nnameserver ::1\nsearch a b\nsearch c d\n"
        "domain e\noptions ndots:2 x\noptions y\nnameserver\n"
    )
    assert node.result(ipam={"resolvConf": str(file)})["dns"] == {
        "nameservers": ["1.1.1.1", "::1"],
        "search": ["c", "d"],
        "domain": "e",
        "options": ["ndots:2", "x", "y"],
    }
    error = refused(5, node.add, "c2", ipam={"resolvConf": str(tmp_path / "no")})
    assert str(tmp_path / "no") in error.msg
    assert list(node.files()) == ["10.5.0.2"]


def test_the_nodes_subnets(tmp_path: Path) -> None:
    file = tmp_path / "subnet.env"
    node = Node(tmp_path, subnetFile=str(file), subnetFileWait=0, exclude=["10.244.1.2"])
    error = refused(11, node.add)
    assert f"open {file}: no such file or directory" in error.msg
    file.write_text(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    assert node.add() == ["10.244.1.3"]
    file.unlink()
    node.delete()
    assert node.files() == {}

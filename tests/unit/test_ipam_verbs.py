"""DEL, CHECK, GC and STATUS of host-local against a folder of leases."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CNIError
from ipam import plugin
from tests.unit.ipam_node import DUAL, SMALL, VALID, YEAR_S, Node, refused

if TYPE_CHECKING:
    from pathlib import Path


# -------------------------------------------------------------------------------------- DEL


def test_del_frees_every_set_and_repeats(tmp_path: Path) -> None:
    node = Node(tmp_path, **DUAL)
    node.add("c1")
    node.add("c1", "net1")
    node.delete("c1")
    assert sorted(node.files()) == ["10.5.0.3", "fd00::3"]
    node.delete("c1")
    node.delete("c1", "net1")
    assert node.files() == node.entries() == {}


def test_del_without_anything(tmp_path: Path) -> None:
    node = Node(tmp_path / "none")
    node.delete()
    plugin.cmd_del(node.args(ipam={"ranges": [["rubbish"]]}))
    assert not node.data_dir.exists()
    node.data_dir.write_text("a file")
    node.delete()


def test_del_without_valid_ranges(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add()
    node.delete(ipam={"ranges": "rubbish", "routes": 5, "subnet": "x"})
    assert node.files() == {}


def test_del_of_the_old_format(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("10.5.0.7", "old\n")
    node.put("10.5.0.8", "old\r\nnet1")
    node.delete("old", "net1")
    assert list(node.files()) == ["10.5.0.7"]
    node.delete("old", "eth0")
    assert node.files() == {}


def test_a_container_id_too_long_for_a_file_name(tmp_path: Path) -> None:
    node = Node(tmp_path)
    long = "c" * 300
    node.add(long)
    node.add("c2")
    assert list(node.entries()) == ["c2:eth0"]
    refused(103, node.add, long)
    node.delete(long)
    assert list(node.files()) == ["10.5.0.3"]


# ------------------------------------------------------------------------------------ CHECK


def previous(*addresses: str) -> dict[str, Any]:
    return {"prevResult": {"ips": [{"address": one} for one in addresses]}}


def test_check(tmp_path: Path) -> None:
    node = Node(tmp_path, **DUAL)
    node.add("c1")
    node.check("c1")
    node.check("c1", **previous("10.5.0.2/29", "fd00::2/126", "192.0.2.1/24"))
    node.add("c2")
    error = refused(106, node.check, "c1", **previous("10.5.0.3/29", "fd00::2/126", "10.5.0.5/29"))
    assert error.msg.split("; ") == [
        "address 10.5.0.3 of prevResult is leased to c2 eth0",
        "address 10.5.0.5 of prevResult is not leased",
        "address 10.5.0.2 is leased to this attachment but not in prevResult",
    ]
    nothing = refused(106, node.check, "c9")
    assert nothing.msg == "host-local: Failed to find address added by container c9"
    refused(106, Node(tmp_path / "none").check, "c1")
    assert not (tmp_path / "none" / "networks").exists()
    refused(7, node.check, "c1", prevResult={"ips": "x"})


# --------------------------------------------------------------------------------------- GC


def test_gc_frees_what_is_not_listed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")
    node.add("c2")
    node.add("c2", "net1")
    node.put("10.5.0.20", "old1")
    node.put("10.5.0.21", "old2")
    node.put("10.5.0.22", "")
    node.put("10.5.0.23", "a b c")
    node.gc(("c2", "eth0"), ("old1", "eth0"))
    assert sorted(node.files()) == ["10.5.0.20", "10.5.0.23", "10.5.0.3"]
    assert (node.leases / "lock").exists()
    assert (node.leases / "last_reserved_ip.0").exists()
    assert any("10.5.0.23" in note for note in node.notes)
    assert set(node.entries()) == {"c2:eth0", "old1:"}
    node.gc()
    assert node.files() == node.entries() == {}


def test_gc_without_a_list_frees_only_the_dead(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("living")
    node.put("10.5.0.20", "dead\r\neth0", age_s=YEAR_S)
    node.put("10.5.0.21", "", age_s=YEAR_S)
    node.gc(absent=True)
    assert list(node.files()) == ["10.5.0.2"]


def test_gc_without_leases(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.gc()
    node.gc(absent=True)
    assert not node.data_dir.exists()


@pytest.mark.parametrize("value", ["x", {"a": 1}, [5], [{"ifname": "eth0"}], [{"containerID": 5}]])
def test_gc_with_a_wrong_list_frees_nothing(tmp_path: Path, value: Any) -> None:
    node = Node(tmp_path)
    node.add()
    with pytest.raises(CNIError) as caught:
        plugin.cmd_gc(node.args(**{VALID: value}))
    assert caught.value.code == 7
    assert len(node.files()) == 1


def test_gc_list_in_any_case(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add()
    args = node.args()
    args.conf["CNI.dev/Valid-Attachments"] = [{"ContainerId": "c1", "IFNAME": "eth0"}]
    plugin.cmd_gc(args)
    assert len(node.files()) == 1


def test_gc_goes_on_after_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    for n in range(4):
        node.add(f"c{n}")
    unlink = os.unlink

    def stubborn(path: Any, **more: Any) -> None:
        if path in ("10.5.0.2", "10.5.0.4"):
            raise PermissionError(1, "Operation not permitted", path)
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", stubborn)
    error = refused(5, node.gc)
    assert "10.5.0.2" in error.msg
    assert "10.5.0.4" in error.msg
    assert sorted(node.files()) == ["10.5.0.2", "10.5.0.4"]
    monkeypatch.undo()
    node.delete("c0")
    assert sorted(node.files()) == ["10.5.0.4"]


# ----------------------------------------------------------------------------------- STATUS


def test_status(tmp_path: Path) -> None:
    node = Node(tmp_path, **SMALL)
    node.status()
    assert not node.data_dir.exists()
    for n in range(5):
        node.status()
        node.add(f"c{n}")
    error = refused(50, node.status)
    assert error.msg == "no IP addresses available in range set: 10.5.0.1-10.5.0.6"
    node.put("10.5.0.3", "c1\r\neth0", age_s=YEAR_S)
    node.status()
    node.put("10.5.0.3", "")
    node.status()
    assert len(node.files()) == 5


def test_status_of_the_nodes_subnets(tmp_path: Path) -> None:
    file = tmp_path / "subnet.env"
    node = Node(tmp_path, subnetFile=str(file))
    assert "no such file" in refused(50, node.status).msg
    file.write_text("FLANNEL_MTU=0")
    refused(50, node.status)
    refused(7, Node(tmp_path, ranges="x").status)

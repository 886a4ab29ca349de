"""The index beside the leases: what it saves, and how it notices that it is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CNIError, Interrupted
from ipam.index import SHIFT_NS, Index
from ipam.lease import DRAFT
from ipam.store import Store
from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def is_trusted(node: Node) -> bool:
    store = Store.look(str(node.data_dir), "net")
    assert store is not None
    with store:
        return store.index.matches(store.dir_fd)


def test_index_says_who_holds_what(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00::/64"}]])
    node.add("c1", netns="/proc/self/ns/net")
    stat = os.stat("/proc/self/ns/net")
    assert node.entries() == {
        "c1:eth0": f"10.5.0.2,fd00::2 {stat.st_dev}:{stat.st_ino} /proc/self/ns/net"
    }
    assert is_trusted(node)
    node.delete("c1")
    assert node.entries() == {}
    assert is_trusted(node)


def foreign_add(node: Node) -> None:
    node.put("10.5.0.77", "go\r\neth0")


def foreign_del(node: Node) -> None:
    (node.leases / "10.5.0.2").unlink()


def index_removed(node: Node) -> None:
    shutil.rmtree(node.index)


def entry_removed(node: Node) -> None:
    (node.index / "c1:eth0").unlink()


def all_removed(node: Node) -> None:
    shutil.rmtree(node.leases)


def same_tick(node: Node) -> None:
    """A foreign change within the clock tick of our own last change."""
    ticks: list[int] = []
    real = os.utime

    def before(path: Any, **more: Any) -> None:
        ticks.append(os.stat(path).st_mtime_ns)
        real(path, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", before)
        node.delete("c2")
    assert is_trusted(node)
    foreign_add(node)
    os.utime(node.leases, ns=(ticks[0], ticks[0]))


def killed_within_one_tick(node: Node) -> None:
    """A call of ours that changed both directories and never came to vouch for them."""
    foreign_add(node)
    now = time.time_ns()
    os.utime(node.leases, ns=(now, now))
    os.utime(node.index, ns=(now, now))


CHANGES = [
    foreign_add,
    foreign_del,
    index_removed,
    entry_removed,
    same_tick,
    killed_within_one_tick,
]


@pytest.mark.parametrize("change", [*CHANGES, all_removed])
def test_index_notices_changes_by_others(tmp_path: Path, change: Callable[[Node], None]) -> None:
    node = Node(tmp_path)
    node.add("c1", netns="/proc/self/ns/net")
    node.add("c2")
    assert is_trusted(node)
    change(node)
    assert not node.leases.exists() or not is_trusted(node)
    node.delete("go")
    node.delete("c1")
    node.delete("c2")
    assert node.files() == {}
    assert not node.leases.exists() or node.entries() == {}


def test_rebuilding_keeps_what_is_known_of_namespaces(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1", netns="/proc/self/ns/net")
    before = node.entries()
    foreign_add(node)
    node.add("c2")
    assert node.entries()["c1:eth0"] == before["c1:eth0"]
    assert node.entries()["go:eth0"] == "10.5.0.77"


def test_an_entry_is_only_a_hint(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")
    (node.leases / "10.5.0.2").write_text("c9\r\neth0")  # in place: the directory keeps its time
    assert is_trusted(node)
    node.delete("c1")
    assert node.files() == {"10.5.0.2": "c9\r\neth0"}


def test_no_index_possible(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.data_dir.mkdir()
    (node.data_dir / ".index").write_text("a file in its place")
    node.add("c1")
    node.add("c2")
    with pytest.raises(CNIError):
        node.add("c1")
    node.delete("c1")
    assert node.files() == {"10.5.0.3": "c2\r\neth0"}


def test_an_entry_that_cannot_be_removed_is_not_vouched_for(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")
    node.add("c2")

    def refused(*_: Any) -> None:
        raise OSError(errno.EIO, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Index, "remove", refused)
        node.delete("c1")
    assert node.files() == {"10.5.0.3": "c2\r\neth0"}
    assert not is_trusted(node)


def test_what_a_killed_call_has_left_is_nobodys(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(DRAFT, "c9\r\neth0")
    node.add("c1")
    foreign_add(node)
    node.put(DRAFT, "c9\r\neth0")
    node.add("c2")
    assert set(node.entries()) == {"c1:eth0", "c2:eth0", "go:eth0"}


def test_reading_no_other_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    for n in range(20):
        node.add(f"c{n}")
    calls: list[str] = []
    real = os.open

    def counted(path: Any, *args: Any, **more: Any) -> int:
        calls.append(path)
        return real(path, *args, **more)

    def listing(*_: Any) -> list[str]:
        pytest.fail("listed the directory")

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(os, "listdir", listing)
    node.add("x")
    node.delete("x")
    node.delete("x")
    assert [name for name in calls if str(name).startswith("10.")] == ["10.5.0.22"]


def test_times_are_exactly_the_shift_apart(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add()
    assert node.leases.stat().st_mtime_ns - node.index.stat().st_mtime_ns == SHIFT_NS


def test_an_entry_that_is_not_replaced_is_not_vouched_for(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")

    def interrupted(*_: Any) -> None:
        if "c1:eth0" not in node.entries():  # the old entry is gone, the new one is not there
            raise Interrupted(signal.SIGTERM)
        raise FileExistsError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "symlink", interrupted)
        with pytest.raises(Interrupted):
            node.add("c1", ipam={"ranges": [[{"subnet": "10.6.0.0/24"}]]})
    assert node.files() == {"10.5.0.2": "c1\r\neth0"}
    assert not is_trusted(node)
    node.delete("c1")
    assert node.files() == {}


def test_two_networks_of_ranges_in_one_entry(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")
    assert node.add("c1", ipam={"ranges": [[{"subnet": "10.6.0.0/24"}]]}) == ["10.6.0.2"]
    assert node.entries() == {"c1:eth0": "10.6.0.2,10.5.0.2"}
    node.delete("c1")
    assert node.files() == {}

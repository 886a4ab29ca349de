"""What of a store nobody sees as long as all goes well: locks, drafts, links, failures half-way."""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from cni.cidr import Address, parse_address
from cni.errors import CNIError
from ipam import allocator, lease, lock, sweep
from ipam.conf import Conf
from ipam.index import Entry, Index
from ipam.request import read_range_sets
from ipam.store import Store
from ipam.witness import Witness
from tests.unit.ipam_node import YEAR_S, Node, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.ranges import RangeSet

C1, C2 = ("c1", "eth0"), ("c2", "eth0")
FIRST, SECOND = parse_address("10.5.0.2"), parse_address("10.5.0.3")


def opened(node: Node) -> Store:
    store = Store.open(str(node.data_dir), "net", 1.0, create=True)
    assert store is not None
    return store


def descriptors(path: Path) -> int:
    """How often this process has a file or folder open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.path.samefile(f"/proc/self/fd/{name}", path)
        except OSError:
            continue
    return count


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, when: Callable[..., bool]
) -> None:
    """Let a function of `os` fail for some arguments."""
    real = getattr(os, name)

    def called(*args: Any, **options: Any) -> Any:
        if when(*args):
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(os, name, called)


def without_unnamed_files(monkeypatch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    failing(monkeypatch, "open", number, lambda _, flags, *__: flags & os.O_TMPFILE == os.O_TMPFILE)


# -------------------------------------------------------------------------------------------- locks


def test_the_lock_is_for_one(tmp_path: Path) -> None:
    """Taken at once, and waited for."""
    node = Node(tmp_path)
    with opened(node):
        other = os.open(node.leases / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    lock.wait(other, "lock", 20.0)
    third = os.open(node.leases / "lock", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(other)
    os.close(third)


def test_no_thread_to_wait_in_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    path = tmp_path / "lock"
    fd = os.open(path, os.O_CREAT | os.O_RDONLY)
    refused(11, lock.wait, fd, str(path), 1.0)
    assert descriptors(path) == 1
    os.close(fd)


def test_a_call_that_gets_no_lock_keeps_nothing_open(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with opened(node):
        before = descriptors(node.leases), descriptors(node.leases / "lock")
        refused(11, node.add, ipam={"lockTimeout": 0})
        assert (descriptors(node.leases), descriptors(node.leases / "lock")) == before
    assert descriptors(node.leases) == descriptors(node.leases / "lock") == 0


def test_a_folder_that_cannot_be_opened_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.add()
    failing(monkeypatch, "open", errno.EACCES, lambda path, *_: str(path) == str(node.leases))
    refused(5, node.delete)


# ---------------------------------------------------------------------------------------- roll-back


def test_a_roll_back_takes_only_what_is_its_own(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("10.5.0.2", "c2\r\neth0")
    store = opened(node)
    assert store.reserve([FIRST, SECOND], C1) == SECOND
    node.put("theirs", "c3\r\neth0")
    (node.leases / "theirs").rename(node.leases / "10.5.0.3")
    assert store.reserve([parse_address("10.5.0.4")], C1) is not None
    store.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert node.files() == {"10.5.0.2": "c2\r\neth0", "10.5.0.3": "c3\r\neth0"}


# ------------------------------------------------------------------------------------------- drafts


@pytest.mark.parametrize(
    "content",
    [b"a\r\nb\r\nc", b"a/b\r\neth0", b"a\r\ne/0", b"a:b\r\neth0", b"a\0\r\neth0", b"a b", b""],
)
def test_what_is_no_owner(content: bytes) -> None:
    assert lease.owner_of(content) is None


def test_a_draft_of_a_killed_call_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.put(lease.DRAFT, "c9\r\neth0")
    without_unnamed_files(monkeypatch)
    assert node.add() == ["10.5.0.2"]
    assert node.files() == {"10.5.0.2": "c1\r\neth0"}


def test_a_draft_is_no_lease(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(lease.DRAFT, "c9\r\neth0")
    node.delete("c8")
    assert node.entries() == {}


def test_a_folder_in_which_nothing_can_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.add()
    drafts = lambda path, *_: path in (".", lease.DRAFT)  # noqa: E731
    failing(monkeypatch, "open", errno.ENOSPC, drafts)
    refused(5, node.add, "c2")


@pytest.mark.parametrize("drafts", ["unnamed", "named"])
def test_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drafts: str
) -> None:
    """A lease of somebody stays; what is no matter of links is an error."""
    node = Node(tmp_path)
    if drafts == "named":
        without_unnamed_files(monkeypatch)
    node.put("10.5.0.2", "c9\r\neth0")
    with monkeypatch.context() as patched:
        failing(patched, "link", errno.EPERM, lambda *_: True)
        with opened(node) as store:
            assert store.reserve([FIRST, SECOND], C1) == SECOND
    assert node.files() == {"10.5.0.2": "c9\r\neth0", "10.5.0.3": "c1\r\neth0"}
    failing(monkeypatch, "link", errno.ENOSPC, lambda *_: True)
    refused(5, node.add, "c2")


def test_a_draft_that_cannot_be_written_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    without_unnamed_files(monkeypatch)
    failing(monkeypatch, "write", errno.ENOSPC, lambda *_: True)
    refused(5, node.add)
    assert node.files() == {}
    assert descriptors(node.leases) == 0


def test_a_lease_has_the_time_of_its_call(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with opened(node) as store:
        store.reserve([FIRST], C1, 1_700_000_000_123_456_789)
    assert (node.leases / "10.5.0.2").stat().st_mtime_ns == 1_700_000_000_123_456_789


# -------------------------------------------------------------------------------------------- index


def test_who_only_looks_rebuilds_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add()
    node.put("10.5.0.9", "c9\r\neth0")  # by Go's plugin: the index does not match any more
    before = node.entries()
    store = Store.look(str(node.data_dir), "net")
    assert store is not None
    with store:
        assert store.held(("c9", "eth0")) == [parse_address("10.5.0.9")]
    assert node.entries() == before
    with opened(node) as store:
        assert store.held(("c9", "eth0")) == [parse_address("10.5.0.9")]
    assert node.entries() == {**before, "c9:eth0": "10.5.0.9"}


def test_a_rebuilt_index_has_the_addresses_of_now_and_the_namespaces_of_then(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    node.add()
    index = Index(str(node.data_dir), "net")
    index.write(C1, Entry(["10.5.0.7"], "4:1", "/run/netns/a"))
    index.write(C2, Entry(["10.5.0.8"]))
    index.rebuild({C1: ["10.5.0.2"]})
    assert node.entries() == {"c1:eth0": "10.5.0.2 4:1 /run/netns/a"}


@pytest.mark.parametrize("where", [".index", ".index/net"])
def test_an_index_behind_a_link_is_left_alone(tmp_path: Path, where: str) -> None:
    node = Node(tmp_path)
    node.leases.mkdir(parents=True)
    theirs = tmp_path / "theirs"
    (theirs / "net").mkdir(parents=True)
    link = node.data_dir / where
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(theirs if where == ".index" else theirs / "net")
    (theirs / "net" / "precious").write_text("kept")
    assert node.add() == ["10.5.0.2"]
    assert [path.name for path in (theirs / "net").iterdir()] == ["precious"]


def test_an_entry_that_is_too_long_leaves_the_namespace_out() -> None:
    assert str(Entry(["10.5.0.2"], "4:1", "/" + "x" * 5000)) == "10.5.0.2"
    assert str(Entry(["10.5.0.2"], "4:1", "/a")) == "10.5.0.2 4:1 /a"


def test_an_index_that_cannot_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.add()
    failing(monkeypatch, "readlink", errno.EIO, lambda path, *_: "c1:eth0" in str(path))
    node.delete()
    assert node.files() == {}


# -------------------------------------------------------------------------------------------- sweep


def range_sets(node: Node) -> list[RangeSet]:
    def no_node() -> NoReturn:
        raise AssertionError("the ranges are in the conf")

    return read_range_sets(Conf(node.args().conf), no_node)


def test_only_what_was_freed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    for name in ("10.5.0.2", "10.5.0.3"):
        node.put(name, f"{name}\r\neth0", age_s=YEAR_S)
    failing(monkeypatch, "unlink", errno.EIO, lambda name, *_: name == "10.5.0.2")
    with opened(node) as store:
        witness = Witness("net", str(node.results))
        assert sweep.reclaim(store, range_sets(node)[0], witness, node.notes.append) == 1
    assert node.files().keys() == {"10.5.0.2"}


def test_a_full_range_takes_nothing_back_from_another(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.5.0.0/24"}], [{"subnet": "10.6.0.0/24"}]])
    for name in ("10.5.0.2", "10.6.0.2"):
        node.put(name, f"{name}\r\neth0", age_s=YEAR_S)
    with opened(node) as store:
        witness = Witness("net", str(node.results))
        assert sweep.reclaim(store, range_sets(node)[0], witness, node.notes.append) == 1
    assert node.files().keys() == {"10.6.0.2"}


def test_an_address_of_the_other_family_is_not_in_a_range(tmp_path: Path) -> None:
    (range_set,) = range_sets(Node(tmp_path))
    assert allocator.may_give(range_set, FIRST)
    assert not allocator.may_give(range_set, Address(6, FIRST.value))


def test_errors_have_codes(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.leases.parent.mkdir()
    node.leases.write_text("a file is in the way")
    with pytest.raises(CNIError) as caught:
        node.add()
    assert caught.value.code == 5

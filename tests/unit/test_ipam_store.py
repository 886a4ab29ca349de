"""The lock, the index beside the leases, and what happens when a disk or a call fails."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CNIError, Interrupted
from ipam import lock
from ipam.index import SHIFT_NS
from ipam.store import Store
from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# ------------------------------------------------------------------------------------- lock


@contextmanager
def locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        os.close(fd)


def test_lock_held_too_long(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with locked(node.leases / "lock"):
        for timeout in (0, 0.05):
            with pytest.raises(CNIError) as caught:
                node.add(ipam={"lockTimeout": timeout})
            assert caught.value.code == 11
            assert caught.value.msg.startswith(
                f"waited {timeout} s for the lock {node.leases}/lock"
            )
        with pytest.raises(CNIError) as caught:
            node.delete(ipam={"lockTimeout": 0})
        assert caught.value.code == 11
        assert "no such file" not in str(caught.value)
        node.status()  # never waits
    assert node.add() == ["10.5.0.2"]


def test_lock_waits_for_its_turn(tmp_path: Path) -> None:
    node = Node(tmp_path)
    got: list[list[str]] = []
    with locked(node.leases / "lock"):
        waiting = threading.Thread(target=lambda: got.append(node.add()))
        waiting.start()
        time.sleep(0.05)
        assert not got
    waiting.join(20)
    assert got == [["10.5.0.2"]]


def test_lock_that_comes_too_late_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(CNIError):
            lock.wait(fd, str(path), 0.02)
        os.close(fd)
    with locked(path):  # does not hang: the late thread closed its descriptor
        pass


def test_lock_names_its_holder(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add()
    code = (
        f"import fcntl, os, time; fcntl.flock(os.open({str(node.leases / 'lock')!r}, 0), 2);"
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        with pytest.raises(CNIError) as caught:
            node.add("c2", ipam={"lockTimeout": 0})
        holder.kill()
    assert f"which process {holder.pid} (" in caught.value.msg
    assert ", stopped) holds" in caught.value.msg


def test_holder_is_read_from_proc(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as fd:
        stat = os.fstat(fd)
        place = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
        (tmp_path / "71").mkdir()
        (tmp_path / "71" / "stat").write_text("71 (host local) T 1 1")
        (tmp_path / "locks").write_text(
            "1: POSIX  ADVISORY  WRITE 9 00:01:5 0 EOF\n"
            f"2: FLOCK  ADVISORY  WRITE 71 {place} 0 EOF\n"
            f"2: -> FLOCK  ADVISORY  WRITE 72 {place} 0 EOF\n"
        )
        assert lock.holder(fd, str(tmp_path)) == "process 71 (host local, stopped)"
        (tmp_path / "71" / "stat").unlink()
        assert lock.holder(fd, str(tmp_path)) == "process 71"
        (tmp_path / "locks").unlink()
        assert lock.holder(fd, str(tmp_path)) == "another process"


def test_directory_removed_while_waiting(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c1")
    got: list[list[str]] = []
    with locked(node.leases / "lock"):
        waiting = threading.Thread(target=lambda: got.append(node.add("c2")))
        waiting.start()
        time.sleep(0.05)
        shutil.rmtree(node.leases)
    waiting.join(20)
    assert got == [["10.5.0.2"]]
    assert node.files() == {"10.5.0.2": "c2\r\neth0"}


# ------------------------------------------------------------------------------------ index


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
    tick = node.leases.stat().st_mtime_ns + 1
    foreign_add(node)
    os.utime(node.leases, ns=(tick, tick))


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


# --------------------------------------------------------------------------- failing disks


def test_without_files_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def old_kernel(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", old_kernel)
    node = Node(tmp_path)
    node.put(".new-lease", "left by SIGKILL")
    node.put("10.5.0.2", "")
    assert [node.add("c1"), node.add("c2")] == [["10.5.0.2"], ["10.5.0.3"]]
    assert node.files() == {"10.5.0.2": "c1\r\neth0", "10.5.0.3": "c2\r\neth0"}


@pytest.mark.parametrize("call", ["open", "write", "link", "pwrite"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_disk_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    node = Node(tmp_path)
    node.add("c1")
    before = node.files()
    real = getattr(os, call)

    def failing(*args: Any, **more: Any) -> Any:
        if call == "open" and not args[1] & (os.O_WRONLY | os.O_CREAT):
            return real(*args, **more)
        raise OSError(number, os.strerror(number), args[0] if isinstance(args[0], str) else None)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(CNIError) as caught:
        node.add("c2")
    monkeypatch.undo()
    assert caught.value.code == 5
    assert str(node.leases) in caught.value.msg
    assert os.strerror(number).lower() in caught.value.msg
    assert caught.value.details
    assert node.files() == before
    node.delete("c2")
    node.delete("c1")
    assert node.files() == {}


def test_half_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    monkeypatch.setattr(os, "write", lambda *_: 2)
    with pytest.raises(CNIError, match="no space left"):
        node.add()
    assert node.files() == {}


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.data_dir.mkdir()
    node.leases.write_text("x")
    with pytest.raises(CNIError) as caught:
        node.add()
    assert caught.value.code == 5
    assert "not a directory" in caught.value.msg
    node.delete()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with pytest.raises(CNIError) as caught:
        node.add(name="n" * 300)
    assert caught.value.code == 7
    node.delete(name="n" * 300)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_del_that_fails_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    node = Node(tmp_path)
    node.add()

    def failing(path: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(CNIError) as caught:
        node.delete()
    assert caught.value.code == 5
    assert str(node.leases / "10.5.0.2") in caught.value.msg
    monkeypatch.undo()
    node.delete()
    assert node.files() == {}


# ------------------------------------------------------------------------------- interrupts

STEPS = ("open", "write", "link", "unlink", "symlink", "utime", "pwrite", "stat", "mkdir")


class Steps:
    """Counts the system calls of the store and stops at one of them, before or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.count = 0
        self.at = at
        self.after = after
        for name in STEPS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, counted."""

        def step(*args: Any, **more: Any) -> Any:
            self.count += 1
            here = self.count == self.at
            if here and not self.after:
                raise Interrupted(signal.SIGTERM)
            value = real(*args, **more)
            if here:
                raise Interrupted(signal.SIGTERM)
            return value

        return step


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_interrupted_anywhere_no_lease_stays(tmp_path: Path, *, after: bool) -> None:
    dual = [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00::/64"}]]
    for at in range(1, 200):
        node = Node(tmp_path / str(at), ranges=dual)
        node.add("c1")
        node.put("10.5.0.3", "")
        with pytest.MonkeyPatch.context() as patch:
            Steps(patch, at, after=after)
            try:
                node.add("c2")
            except Interrupted:
                pass
            else:
                break
        assert "c2\r\neth0" not in node.files().values(), at
        node.delete("c2")
        assert "c2\r\neth0" not in node.files().values()
        assert node.add("c3")
    else:
        pytest.fail("never came to its end")

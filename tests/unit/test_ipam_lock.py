"""The lock: its turn, its limit, its holder."""

from __future__ import annotations

import _thread
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
from typing import TYPE_CHECKING

import pytest

from cni.errors import CNIError
from ipam import lock
from tests.unit.ipam_node import Node, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    end = time.monotonic() + 60
    while any(
        os.path.realpath(f"/proc/self/fd/{n}") == str(path) for n in os.listdir("/proc/self/fd")
    ):
        assert time.monotonic() < end, "the late thread keeps the lock"


@pytest.mark.parametrize("comes_at_once", [True, False])
def test_a_lock_that_fails_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, comes_at_once: bool
) -> None:
    """There are file systems without locks, and a kernel may have no memory for one more."""
    node = Node(tmp_path)
    node.add("c1")

    def failing(fd: int, kind: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            return
        if kind & fcntl.LOCK_NB and not comes_at_once:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", failing)
    for call in (node.add, node.delete, node.gc):
        with pytest.raises(CNIError, match="no locks available") as caught:
            call()
        assert caught.value.code == 5
    assert node.files() == {"10.5.0.2": "c1\r\neth0"}


def test_without_threads_a_lock_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", failing)
    node = Node(tmp_path)
    with locked(node.leases / "lock"):
        refused(11, node.add)
    assert node.add() == ["10.5.0.2"]


# ------------------------------------------------------------------------- first come, first served


def locks(path: Path, kind: str) -> int:
    """How many locks of a kind a file has: READ is shared, WRITE exclusive, "->" waits."""
    inode = path.stat().st_ino
    with open("/proc/locks", encoding="utf-8") as file:
        lines = [" ".join(line.split()[1:]) for line in file if f":{inode} " in line]
    return sum(line.startswith(kind) for line in lines)


def waiters(path: Path) -> int:
    return locks(path, "-> FLOCK ADVISORY WRITE")


def has_senior(folder: Path) -> bool:
    """A newcomer that looks whether there is one has the lock for a moment, too, but exclusive."""
    return locks(folder, "FLOCK ADVISORY READ") > 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Calls:
    """ADDs in threads; `served` are their containers in the order in which they were served."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.served: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, container_id: str) -> None:
        def call() -> None:
            self.node.add(container_id, ipam={"lockTimeout": 60})
            self.served.append(container_id)

        self._threads.append(threading.Thread(target=call))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


def test_who_comes_first_is_served_first(tmp_path: Path) -> None:
    node = Node(tmp_path)
    calls = Calls(node)
    names = [f"c{n}" for n in range(12)]
    with locked(node.leases / "lock"):
        for n, name in enumerate(names, 1):
            calls.start(name)
            until(lambda count=n: waiters(node.leases / "lock") == count)  # type: ignore[misc]
    calls.join()
    holders = {file: text.split()[0] for file, text in node.files().items()}
    assert [holders[f"10.5.0.{n}"] for n in range(2, 14)] == names


def test_newcomers_let_a_senior_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits for long holds them back, until it has its turn."""
    monkeypatch.setattr(lock, "SENIOR_S", 0.01)
    monkeypatch.setattr(lock, "PATIENCE_S", 60)
    node = Node(tmp_path)
    calls = Calls(node)
    with locked(node.leases / "lock"):
        calls.start("senior")
        until(lambda: has_senior(node.leases))
        calls.start("newcomer")
        until(lambda: waiters(node.leases) == 1)
    calls.join()
    assert node.files() == {"10.5.0.2": "senior\r\neth0", "10.5.0.3": "newcomer\r\neth0"}
    assert not has_senior(node.leases)


def test_a_free_lock_is_left_to_seniors(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.add("c0")
    calls = Calls(node)
    fd = os.open(node.leases, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)  # somebody is on his way to it
    calls.start("newcomer")
    until(lambda: waiters(node.leases) == 1)
    assert calls.served == []
    os.close(fd)
    calls.join()
    assert calls.served == ["newcomer"]


def test_a_folder_that_cannot_be_locked_has_no_seniors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def failing(fd: int, kind: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(fd, kind)

    monkeypatch.setattr(fcntl, "flock", failing)
    assert Node(tmp_path).add() == ["10.5.0.2"]


def test_a_senior_who_is_stopped_holds_nobody_back_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    node = Node(tmp_path)
    node.add("c0")
    fd = os.open(node.leases, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert node.add("newcomer") == ["10.5.0.3"]
    assert node.add("hurried", ipam={"lockTimeout": 0}) == ["10.5.0.4"]
    os.close(fd)


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
            f"1: -> FLOCK  ADVISORY  WRITE 70 {place} 0 EOF\n"
            f"1: POSIX  ADVISORY  WRITE 69 {place} 0 EOF\n"
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

"""The lock: its turn, its limit, its holder."""

from __future__ import annotations

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
from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
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

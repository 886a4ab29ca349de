"""Entering and leaving network namespaces, and what is refused as one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cni.netns import CLONE_NEWNET, OWN
from netlink import netns, sysctl
from tests.kernel.privatens import needs_root, new_pod, private

if TYPE_CHECKING:
    from pathlib import Path


def _inode() -> int:
    return os.stat(OWN).st_ino


def _pod() -> int:
    """Make a network namespace and return a descriptor of it."""
    return os.open(f"/proc/{new_pod()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@needs_root
@private
def test_a_block_inside_and_back() -> None:
    own, pod = _inode(), _pod()
    assert not netns.is_own(pod)
    with netns.entered(pod):
        assert netns.is_own(pod)
        assert _inode() == os.fstat(pod).st_ino
    assert _inode() == own


@needs_root
@private
def test_back_after_an_exception_and_without_leaking() -> None:
    own, pod = _inode(), _pod()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(KeyError), netns.entered(pod):
            raise KeyError
    assert _inode() == own
    assert os.listdir("/proc/self/fd") == before


@needs_root
@private
def test_what_cannot_be_entered_changes_nothing() -> None:
    own = _inode()
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Invalid argument") as caught, netns.entered(fd):
        raise AssertionError("the block must not run")
    assert caught.value.errno == errno.EINVAL
    assert _inode() == own
    assert os.listdir("/proc/self/fd") == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@needs_root
@private
def test_blocks_nest() -> None:
    own, one, two = _inode(), _pod(), _pod()
    with netns.entered(one):
        with netns.entered(two):
            assert netns.is_own(two)
        assert netns.is_own(one)
    assert _inode() == own


@needs_root
@private
def test_other_threads_stay_where_they_are() -> None:
    own, pod = _inode(), _pod()
    seen: list[int] = []
    with netns.entered(pod):
        main = os.stat("/proc/self/ns/net").st_ino
        # the thread starts where its maker is, and leaves: this one must not notice
        away = _pod()
        thread = threading.Thread(target=lambda: seen.extend(_visit(away)))
        thread.start()
        thread.join()
        assert netns.is_own(pod)
    assert main == os.fstat(pod).st_ino
    assert seen == [os.fstat(away).st_ino, os.fstat(pod).st_ino]
    assert _inode() == own


def _visit(fd: int) -> list[int]:
    with netns.entered(fd):
        inside = _inode()
    return [inside, _inode()]


class Interrupted(BaseException):
    """What a signal handler raises."""


@needs_root
@private
def test_a_signal_that_raises_waits_until_the_thread_is_back() -> None:
    own, pod = _inode(), _pod()
    where: list[int] = []

    def handler(_number: int, _frame: object) -> None:
        where.append(_inode())
        raise Interrupted

    signal.signal(signal.SIGTERM, handler)
    ended = False
    with pytest.raises(Interrupted), netns.entered(pod):  # noqa: PT012 the block must go on
        os.kill(os.getpid(), signal.SIGTERM)
        ended = True
    assert ended
    assert where == [own]
    assert _inode() == own


@needs_root
@private
def test_signals_at_every_instruction() -> None:
    """Raise from a trace function at each line of the module in turn: always back."""
    own, pod = _inode(), _pod()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with netns.entered(pod):
        pass  # the way to setns is found now and not traced below
    pid = os.getpid()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(Interrupted()))
    raised = 0
    for stop in range(200):
        left = stop

        def trace(frame: object, _event: str, _arg: object) -> object:
            nonlocal left
            if frame.f_code.co_filename != netns.__file__:  # type: ignore[attr-defined]
                return None
            frame.f_trace_opcodes = True  # type: ignore[attr-defined]
            left -= 1
            if left == 0:
                sys.settrace(None)
                os.kill(pid, signal.SIGTERM)
            return trace

        try:
            sys.settrace(trace)  # type: ignore[arg-type]
            with netns.entered(pod):
                pass
        except Interrupted:
            raised += 1
        finally:
            sys.settrace(None)
        assert _inode() == own, stop
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask, stop
    assert raised > 20


@needs_root
@private
def test_a_namespace_one_cannot_leave_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = _pod()
    real = netns.setns

    def setns(fd: int, kind: int) -> None:
        if fd != pod:
            raise OSError(errno.EPERM, "Operation not permitted")
        real(fd, kind)

    monkeypatch.setattr(netns, "setns", setns)
    with pytest.raises(netns.WrongNamespace, match="cannot return to the"), netns.entered(pod):
        pass
    assert not issubclass(netns.WrongNamespace, Exception)


@needs_root
@private
def test_every_way_to_setns() -> None:
    own, pod = os.open(OWN, os.O_RDONLY), _pod()
    for way in (netns._setns_of_libc(), netns._setns_of_ctypes()):
        way(pod, CLONE_NEWNET)
        assert netns.is_own(pod)
        way(own, CLONE_NEWNET)
        assert netns.is_own(own)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            way(-1, CLONE_NEWNET)
        assert caught.value.errno == errno.EBADF


@needs_root
@private
def test_sysctls_are_those_of_the_thread() -> None:
    pod = _pod()
    assert sysctl.write("net/ipv4/ip_forward", 0)
    with netns.entered(pod):
        assert sysctl.write("net/ipv4/ip_forward", 1)
        assert sysctl.read("net/ipv4/ip_forward") == "1"
    assert sysctl.read("net/ipv4/ip_forward") == "0"
    assert sysctl.read("net/ipv4/conf/nope/arp_notify") is None
    assert not sysctl.write("net/ipv4/conf/nope/arp_notify", 1)
    with pytest.raises(OSError, match="Invalid argument"):
        sysctl.write("net/ipv4/ip_forward", "no number")


# --------------------------------------------------------------------- what is opened, without root


def test_a_namespace_is_opened() -> None:
    fd = netns.open("/proc/self/ns/net")
    assert netns.is_own(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("path", ["", "nope", "/proc/2147483647/ns/net"])
def test_nothing_there(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        netns.open(str(tmp_path / path) if path == "nope" else path)


def test_a_process_that_ended_has_no_namespace() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(FileNotFoundError):
        netns.open(f"/proc/{pid}/ns/net")
    os.waitpid(pid, 0)


def test_something_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        expected = {
            str(tmp_path / "file"): "not a network namespace but a plain file",
            str(tmp_path / "pipe"): "not a network namespace but a named pipe",
            str(tmp_path): "not a network namespace but a directory",
            "/dev/null": "not a network namespace but a device",
            "/proc/self/ns/mnt": "not a network namespace but another kind of namespace",
            str(tmp_path / "file" / "x"): "not a directory",
            str(tmp_path / "socket"): "not a network namespace but a socket",
        }
        before = os.listdir("/proc/self/fd")
        for path, what in expected.items():
            with pytest.raises(netns.NotANamespace) as caught:
                netns.open(path)
            assert (caught.value.strerror, caught.value.filename) == (what, path)
            assert "no such file" not in str(caught.value).lower()
        assert os.listdir("/proc/self/fd") == before

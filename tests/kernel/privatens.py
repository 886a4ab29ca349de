"""Test bodies in a network and mount namespace of their own, and pods as further namespaces.

A namespace lives as long as a process in it: every process made here dies with its parent
(PR_SET_PDEATHSIG), so that nothing stays behind when pytest itself is killed.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import traceback
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pytest

from tests.namespaces import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    die_with,
    make_mounts_private,
    mount,
    setns,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")


def in_child(body: Callable[[], T]) -> T:
    """Run the body in a forked child and return what it returns, or raise with its traceback."""
    read, write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            die_with(parent)
            answer: tuple[bool, object]
            try:
                answer = (True, body())
            except BaseException:  # noqa: BLE001 - the parent raises it
                answer = (False, traceback.format_exc())
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as pipe:
            raw = pipe.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not raw:
        raise AssertionError("the child died without an answer")
    succeeded, value = pickle.loads(raw)  # noqa: S301 - our own child wrote it
    if not succeeded:
        raise AssertionError(f"in a private namespace:\n{value}")
    result: T = value
    return result


def private(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test in fresh network and mount namespaces, with an empty /run."""

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        def body() -> None:
            unshare(CLONE_NEWNET | CLONE_NEWNS)
            make_mounts_private()
            mount("tmpfs", "/run")
            sh("ip link set lo up")
            test(*args, **kwargs)

        in_child(body)

    return wrapped


def new_pod() -> int:
    """Make a network namespace, held by the process whose id comes back."""
    read, write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            unshare(CLONE_NEWNET)
            os.write(write, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    ready = os.read(read, 1)
    os.close(read)
    assert ready == b"1"
    return pid


def inside(pod: int, body: Callable[[], T]) -> T:
    """Run the body in the pod's network namespace, in a process of its own."""

    def entered() -> T:
        fd = os.open(f"/proc/{pod}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
        os.close(fd)
        return body()

    return in_child(entered)


def spawn_inside(pod: int, body: Callable[[], Any]) -> None:
    """Start the body in the pod's network namespace; it ends with the calling process."""
    parent = os.getpid()
    if os.fork() == 0:
        try:
            die_with(parent)
            inside_fd = os.open(f"/proc/{pod}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            setns(inside_fd, CLONE_NEWNET)
            body()
        finally:
            os._exit(1)


def sh(command: str, **environ: str) -> str:
    """Run a shell command and return what it prints; a failure shows its words."""
    done = subprocess.run(
        ["/bin/bash", "-ec", command],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **environ},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout

"""The system calls that tests make on namespaces: what the standard library of 3.11 lacks."""

from __future__ import annotations

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare(flags: int) -> None:
    """Move the calling thread, or its next children, into new namespaces."""
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into a namespace."""
    _check(_libc.setns(fd, kind))


def mount(kind: str, place: str, data: str = "") -> None:
    """Mount a file system that needs no device."""
    _check(_libc.mount(kind.encode(), place.encode(), kind.encode(), 0, data.encode()))


def unmount(place: str) -> None:
    """Take away what is mounted last at a place, as soon as nobody uses it."""
    _check(_libc.umount2(place.encode(), MNT_DETACH))


def make_mounts_private() -> None:
    """What is mounted here from now on is mounted nowhere else."""
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def die_with(parent: int) -> None:
    """Die when the parent does: the calling process, and what it becomes by exec."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    if os.getppid() not in (parent, 0):  # 0: the parent is outside this process namespace
        os._exit(1)


def adopt(*, orphans: bool) -> None:
    """Whether a descendant that outlives its parent becomes the calling process's child."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0))

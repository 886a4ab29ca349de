"""The folder of a network's leases: opened, and locked for a visit that may change something.

The lock is flock(2) on `lock` in the folder, exclusive, as Go's plugin takes it. Raises OSError;
knows no leases.
"""

from __future__ import annotations

import fcntl
import os

from cni import files

_GLANCES = 3  # one may meet another newcomer's


def look(path: str) -> int | None:
    """Open the folder; None when there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in files.NOT_THERE:
            return None
        raise


def locked(path: str, timeout_s: float, *, create: bool) -> tuple[int, int] | None:
    """Open the folder and lock it, as two descriptors; None when it is not there, nor to be made.

    CNIError 11 when the lock is not free in time.
    """
    while True:
        dir_fd = _made(path) if create else look(path)
        if dir_fd is None:
            return None
        lock_fd = None
        try:
            lock_fd = _lock(path, dir_fd, timeout_s)
        except FileNotFoundError:  # /proc makes no files: there are no leases
            if create:
                raise
            return None
        finally:
            if lock_fd is None:
                os.close(dir_fd)
        if lock_fd is not None:
            return dir_fd, lock_fd


def _made(path: str) -> int:
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            files.make_folder(path, 0o755)


def _lock(path: str, dir_fd: int, timeout_s: float) -> int | None:
    """Take the lock; None when the folder was replaced while we waited."""
    try:
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        lock_fd = os.open("lock", flags, 0o750, dir_fd=dir_fd)
    except FileNotFoundError:
        if _is_same(dir_fd, path):
            raise
        return None  # it has been removed under our feet
    is_ours = False
    try:
        _take(lock_fd, dir_fd, f"{path}/lock", timeout_s)
        is_ours = _is_same(lock_fd, f"{path}/lock")
    finally:
        if not is_ours:
            os.close(lock_fd)
    return lock_fd if is_ours else None


def _take(lock_fd: int, dir_fd: int, path: str, timeout_s: float) -> None:
    has_seniors = timeout_s > 0 and _has_seniors(dir_fd)
    if not has_seniors:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return
    from ipam import lock  # only when somebody else holds it, or has waited for long

    lock.wait_for_turn(lock_fd, dir_fd, path, timeout_s, has_seniors=has_seniors)


def _has_seniors(dir_fd: int) -> bool:
    """Whether somebody has waited for so long that newcomers let him go first (ipam/lock.py)."""
    for _ in range(_GLANCES):
        try:
            fcntl.flock(dir_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(dir_fd, fcntl.LOCK_UN)
        except BlockingIOError:
            continue
        except OSError:  # no locks on folders here: nobody goes first
            pass
        return False
    return True


def _is_same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False

"""Waiting for a lock that another call holds, with a bound; and who that is.

flock(2) knows no time limit: a helper thread waits in the call, the caller waits for the thread,
and nothing polls. Nor does it know first come, first served: it wakes who waits, and leaves the
lock to whoever takes it first. A newcomer that runs already is faster than a sleeper, which is
good for most, and lets some sleep for seconds. So who has waited for `SENIOR_S` locks the folder
of the leases, too (flock again, shared). Newcomers want that lock for themselves before they ask
for the other, so they stay away, one behind the other, until there are no seniors any more. Then
nobody overtakes, and the lock goes round among those who wait. Go's plugin knows only the lock
itself.

Imported only when the lock is taken. Imports `_thread` then: it is built into the interpreter.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import time

from cni import files
from cni.errors import TRY_AGAIN_LATER, CNIError

SENIOR_S = 1.0
PATIENCE_S = 4.0  # how long newcomers stay away: the senior may be stopped


def wait(fd: int, path: str, timeout_s: float) -> None:
    """Take the exclusive lock on `fd`, the open file `path`.

    CNIError 11 when `timeout_s` passed without it; OSError when there are no such locks.
    """
    deadline = time.monotonic() + timeout_s
    if timeout_s <= 0 or not _Waiting(fd, fcntl.LOCK_EX).is_over(deadline):
        raise _late(fd, path, timeout_s)


def wait_for_turn(
    fd: int, folder_fd: int, path: str, timeout_s: float, *, has_seniors: bool
) -> None:
    """Take the lock as `wait` does; seniors go first, and in the end this call is one."""
    deadline = time.monotonic() + timeout_s
    if timeout_s <= 0:
        raise _late(fd, path, timeout_s)
    if has_seniors:
        _await(folder_fd, min(deadline, time.monotonic() + PATIENCE_S))
    turn = _Waiting(fd, fcntl.LOCK_EX)
    if turn.is_over(min(deadline, time.monotonic() + SENIOR_S)):
        return
    own_fd = _reopened(folder_fd)
    try:
        _Waiting(own_fd, fcntl.LOCK_SH)  # until `own_fd` is closed
        if not turn.is_over(deadline):
            raise _late(fd, path, timeout_s)
    finally:
        os.close(own_fd)


def _await(folder_fd: int, deadline: float) -> None:
    """Wait until there are no seniors; the lock on the folder is given back as soon as it comes."""
    own_fd = _reopened(folder_fd)
    try:
        free = _Waiting(own_fd, fcntl.LOCK_EX)
    finally:
        os.close(own_fd)
    free.is_over(deadline)


def _reopened(folder_fd: int) -> int:
    """Open a folder once more: flock(2) tells open files apart, not descriptors."""
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder_fd)


def _late(fd: int, path: str, timeout_s: float) -> CNIError:
    return CNIError(
        TRY_AGAIN_LATER,
        f"waited {timeout_s:g} s for the lock {path}, which {holder(fd)} holds",
        "if that process is stopped or hangs, continue or end it; for a lock of leases "
        "ipam.lockTimeout says how many seconds to wait",
    )


class _Waiting:
    """A thread that waits for a lock on the open file `fd`.

    It has a descriptor of its own: a caller that gave up may close `fd`, and a lock that comes too
    late goes with the thread's.
    """

    __slots__ = ("_failure", "_fd", "_is_going_on", "_kind", "_over")

    def __init__(self, fd: int, kind: int) -> None:
        self._kind = kind
        self._failure: OSError | None = None
        self._over = _thread.allocate_lock()
        self._over.acquire()
        self._fd = os.dup(fd)
        try:
            _thread.start_new_thread(self._wait, ())
            self._is_going_on = True
        except RuntimeError:  # the limit on processes
            os.close(self._fd)
            self._is_going_on = False

    def _wait(self) -> None:
        try:
            fcntl.flock(self._fd, self._kind)
        except OSError as error:
            self._failure = error
        finally:
            os.close(self._fd)
            self._over.release()

    def is_over(self, deadline: float) -> bool:
        """Whether the lock has come by then; OSError when there are no such locks."""
        left = max(deadline - time.monotonic(), 0)
        if not self._is_going_on or not self._over.acquire(timeout=left):
            return False
        self._over.release()
        if self._failure is not None:
            raise self._failure
        return True


def holder(fd: int, proc: str = "/proc") -> str:
    """Describe who holds the lock: "process 4711 (host-local, stopped)", as far as it is known."""
    stat = os.fstat(fd)
    place = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    for line in _read(f"{proc}/locks").splitlines():
        # 1: FLOCK  ADVISORY  WRITE 4711 fd:00:1311 0 EOF    (waiters have "->" as second field)
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
            return f"process {fields[4]}{_looks(f'{proc}/{fields[4]}/stat')}"
    return "another process"


def _looks(path: str) -> str:
    """Name and state of a process, from proc_pid_stat(5)."""
    text = _read(path)
    name = text[text.find("(") + 1 : text.rfind(")")]
    state = text[text.rfind(")") + 2 :][:1]
    if not name:
        return ""
    return f" ({name}, stopped)" if state in "Tt" else f" ({name})"


def _read(path: str) -> str:
    try:
        return files.read(path).decode("utf-8", "replace")
    except OSError:
        return ""

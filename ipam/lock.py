"""Waiting for a lock that another call holds, with a bound; and who that is.

flock(2) queues its waiters but knows no time limit. A helper thread waits in the call, the
caller waits for the thread: nothing polls, and the kernel's order of arrival is kept. Imported
only when the lock is taken. Imports `_thread` then: it is built into the interpreter.
"""

from __future__ import annotations

import _thread
import fcntl
import os

from cni import files
from cni.errors import TRY_AGAIN_LATER, CNIError


def wait(fd: int, path: str, timeout_s: float) -> None:
    """Take the exclusive lock on `fd`, the open file `path`.

    CNIError 11 when `timeout_s` passed without it; OSError when there are no such locks.
    """
    if timeout_s > 0 and _arrives(fd, timeout_s):
        return
    raise CNIError(
        TRY_AGAIN_LATER,
        f"waited {timeout_s:g} s for the lock {path}, which {holder(fd)} holds",
        "if that process is stopped or hangs, continue or end it; for a lock of leases "
        "ipam.lockTimeout says how many seconds to wait",
    )


def _arrives(fd: int, timeout_s: float) -> bool:
    """Wait for the lock in a thread; whether it came in time."""
    # the thread's own descriptor of the same open file: a caller that gave up may close `fd`, and
    # a lock that comes too late goes with this one
    waiting_fd = os.dup(fd)
    arrived = _thread.allocate_lock()
    arrived.acquire()
    failure: list[OSError] = []

    def block() -> None:
        try:
            fcntl.flock(waiting_fd, fcntl.LOCK_EX)
        except OSError as error:
            failure.append(error)
        finally:
            os.close(waiting_fd)
            arrived.release()

    try:
        _thread.start_new_thread(block, ())
    except RuntimeError:  # the limit on processes
        os.close(waiting_fd)
        return False
    if not arrived.acquire(timeout=timeout_s):
        return False
    if failure:
        raise failure[0]
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

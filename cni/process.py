"""Run a program to its end: no shell, no pipes, no `subprocess` (10 ms to import).

stdin, stdout and stderr are memory files (memfd_create(2)), so neither side can block the
other, and a grandchild that keeps them open cannot keep us waiting. Knows nothing of CNI.
Import contract: os, errno, fcntl, time, cni.native; `select` only for a wait with a limit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from cni.native import Held, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BUSY_STEPS_S = (0.001, 0.004, 0.016, 0.064, 0.25, 0.5, 1.0, 1.0, 1.0, 1.0)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # and would stay so across exec
_STEP_S = 0.02  # where no descriptor tells of a child's end
_GRACE_S = 2.0  # between SIGTERM and SIGKILL, for a child that wants to roll back


class Completed:
    """How a program ended: `status` is its exit status, or minus the signal that killed it."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: bytes, stderr: bytes) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: dict[str, str],
    timeout_s: float | None = None,
    connection: int = -1,
) -> Completed:
    """Run `argv[0]`, a path, with exactly the environment `env`, and wait for its end.

    OSError when it cannot be started (ETXTBSY only after 5 s of trying), TimeoutError when it
    outlives `timeout_s`, or the other end of `connection`, a socket, which is watched only together
    with a limit. A child never outlives this call: on any exception it is stopped.
    """
    files: list[int] = []
    try:
        files.extend(_memory_file(name) for name in ("stdin", "stdout", "stderr"))
        _write_all(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        status = _spawn_and_wait(argv, env, files, timeout_s, connection)
        return Completed(status, _content(files[1]), _content(files[2]))
    finally:
        for fd in files:
            os.close(fd)


def _spawn_and_wait(
    argv: Sequence[str],
    env: dict[str, str],
    files: list[int],
    timeout_s: float | None,
    connection: int,
) -> int:
    running: list[int] = []
    try:
        _spawn(argv, env, files, running)
        if timeout_s is not None and not _ended_within(running[0], timeout_s, connection):
            msg = f"{argv[0]} did not end within {timeout_s:g} s, or while the caller waited"
            raise TimeoutError(msg)
        # Without reaping it: until that is done, under Held, the number is still the child's.
        os.waitid(os.P_PID, running[0], os.WEXITED | os.WNOWAIT)
        with Held():
            return os.waitstatus_to_exitcode(os.waitpid(running.pop(), 0)[1])
    finally:
        if running:
            _stop(running[0])


def _spawn(argv: Sequence[str], env: dict[str, str], files: list[int], running: list[int]) -> None:
    """Start the program and note its process in `running`, whatever signal comes meanwhile.

    A file that somebody is still writing is tried again for a while.
    """
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)]
    for step in (*_BUSY_STEPS_S, None):
        try:
            with Held() as held:
                child = os.posix_spawn(
                    argv[0],
                    list(argv),
                    env,
                    file_actions=actions,
                    setsigmask=held.mask,
                    setsigdef=_IGNORED_BY_PYTHON,
                )
                running.append(child)
        except OSError as error:
            if error.errno != errno.ETXTBSY or step is None:
                raise
        else:
            return
        time.sleep(step)  # noqa: TID251 - no event tells that the last writer has closed it


def _ended_within(pid: int, timeout_s: float, connection: int = -1) -> bool:
    """Wait for the child's end without reaping it; no longer than somebody is connected."""
    import select  # only for a wait with a limit

    deadline = time.monotonic() + timeout_s
    poll = select.poll()
    if connection >= 0:
        poll.register(connection, select.POLLRDHUP)
    fd = _pidfd(pid)
    try:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            left = deadline - time.monotonic()
            ready = poll.poll(max(left if fd >= 0 else min(left, _STEP_S), 0) * 1000)
            if left <= 0 or connection in [one for one, _ in ready]:
                return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def _pidfd(pid: int) -> int:
    """A descriptor that is readable when the child ends; -1 before Linux 5.3, or without room."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _stop(pid: int) -> None:
    """End a child that nobody waits for any more, and reap it."""
    os.kill(pid, signal.SIGTERM)
    if not _ended_within(pid, _GRACE_S):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _memory_file(name: str) -> int:
    """Open a memory file above the standard three, which may be closed in this process."""
    fd = os.memfd_create(name)
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _content(fd: int) -> bytes:
    """Read a memory file from its start; the child's writes left the offset at the end."""
    chunks: list[bytes] = []
    offset = 0
    while chunk := os.pread(fd, 1 << 20, offset):
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks)

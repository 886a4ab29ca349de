"""The listening socket and the threads that serve it.

Every thread waits for a connection by itself, the kernel wakes one for each (EPOLLEXCLUSIVE), and
nothing is handed from thread to thread.  A thread is in the network namespace of the process
between two calls, which is proven after each: one that cannot come back ends, and another takes
its place.  Knows no protocol and no verb.
Imports: _thread, os, select, the protocol package.
"""

from __future__ import annotations

import _thread
import os
import select

from cni.native import socket
from cni.netns import OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

REST_S = 0.1


class Server:
    """Threads that accept from one socket.

    ``serve`` gets each connection, as an open socket that is closed afterwards; ``tell`` gets a
    line for a human.  ``threads`` are there, ``busy`` of them serve, ``served`` connections so far.
    """

    __slots__ = (
        "_activity",
        "_home",
        "_listener",
        "_lock",
        "_serve",
        "_stopped",
        "_tell",
        "busy",
        "served",
        "threads",
    )

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], None],
        tell: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._tell = tell
        self._home = _namespace()
        self._lock = _thread.allocate_lock()
        self._stopped = os.eventfd(0)  # readable for ever once `stop` was called
        self._activity = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # a thread has ended
        self.threads = 0
        self.busy = 0
        self.served = 0
        listener.setblocking(False)

    def fileno(self) -> int:
        """Readable when a thread has ended: see ``keep``."""
        return self._activity

    def keep(self, threads: int) -> None:
        """Start what is missing of so many threads.

        RuntimeError or OSError where a limit is reached and there is none at all.
        """
        while self.threads < threads:
            with self._lock:
                self.threads += 1
            try:
                _thread.start_new_thread(self._run, (self._poll(),))
            except (RuntimeError, OSError) as error:
                with self._lock:
                    self.threads -= 1
                if self.threads == 0:
                    raise
                self._tell(f"{self.threads} threads instead of {threads}: {error}")
                return

    def stop(self) -> None:
        """Accept no connection more; threads end when they are through with what they serve."""
        os.eventfd_write(self._stopped, 1)

    def heed(self) -> None:
        """Take note of the threads that have ended: ``fileno`` is not readable any more."""
        os.eventfd_read(self._activity)

    def _poll(self) -> select.epoll:
        """What one thread waits with."""
        poll = select.epoll()
        poll.register(self._listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        poll.register(self._stopped, select.EPOLLIN)
        return poll

    def _rest(self) -> None:
        """Wait a moment, or for the end: without it the kernel would say at once the same again."""
        poll = select.poll()
        poll.register(self._stopped, select.POLLIN)
        poll.poll(REST_S * 1000)

    def _run(self, poll: select.epoll) -> None:
        try:
            while self._stopped not in [fd for fd, _ in poll.poll()] and self._serve_one():
                pass
        finally:
            poll.close()
            with self._lock:
                self.threads -= 1
            os.eventfd_write(self._activity, 1)

    def _serve_one(self) -> bool:
        """Serve the next connection, if there is one; whether this thread may go on."""
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 as socket.accept
        except (BlockingIOError, ConnectionAbortedError):
            return True  # another thread was faster, or the other end has gone already
        except OSError:  # no descriptor, no memory: who waits to be accepted still waits
            self._rest()
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        with self._lock:
            self.busy += 1
        try:
            self._serve(connection)
        except BaseException as error:  # noqa: BLE001 - no call may end the thread
            self._tell(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
            with self._lock:
                self.busy -= 1
                self.served += 1
        return _namespace() == self._home


def _namespace() -> tuple[int, int]:
    found = os.stat(OWN)
    return found.st_dev, found.st_ino

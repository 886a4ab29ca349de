"""Deleting the links of calls that run at the same time, in one wait of the kernel's.

One thread makes the requests and is kept waiting by the kernel; what is asked for meanwhile is its
next batch.  So a single deletion starts at once, and of many each waits for one other batch at the
most.  A second thread hears from the kernel which link is gone, and its caller goes on then: the
rest of the wait is about memory that nobody can see any more (docs/decisions/0015).  Nothing ends
the two threads, and nobody depends on them for ever.
Imports: _thread, ``netlink``.
"""

from __future__ import annotations

import _thread

from netlink import bulk, rtnl
from netlink.events import Events
from netlink.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlink.nlmsg import Message

PATIENCE_S = 10.0
"""So long a call waits for the two threads; of a batch they know within a fraction of a second."""


class _Waiting:
    """A deletion that a call waits for; ``failure`` is what the call is told."""

    __slots__ = ("_told", "deletion", "failure")

    def __init__(self, deletion: bulk.Deletion) -> None:
        self.deletion = deletion
        self.failure: Exception | None = None
        self._told = _thread.allocate_lock()
        self._told.acquire()

    def wait(self) -> bool:
        """Wait until it is told; False if that took too long.  OSError as the kernel's."""
        if not self._told.acquire(timeout=PATIENCE_S):
            return False
        if self.failure is not None:
            raise self.failure
        return True

    def tell(self, failure: Exception | None) -> None:
        """Let the call go on; not twice."""
        self.failure = failure
        self._told.release()


class Deleter:
    """Deletes links in the network namespace in which it was made."""

    __slots__ = ("_arrived", "_asked", "_events", "_lock", "_pending")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()  # of the two below
        self._pending: list[_Waiting] = []
        self._asked: dict[int, list[_Waiting]] = {}  # of the kernel, by ifindex
        self._events = Events(0)
        self._arrived = _thread.allocate_lock()  # released when something is pending
        self._arrived.acquire()

    def start(self) -> None:
        """Start the two threads.  RuntimeError where the limit on processes is reached."""
        _thread.start_new_thread(self._listen, ())
        _thread.start_new_thread(self._work, ())

    def delete(self, index: int, removals: Sequence[Message]) -> None:
        """Delete a link, after these removals; gone is fine.  OSError as the kernel's.

        Where the two threads keep it waiting for long, the caller's own does the work.
        """
        waiting = _Waiting(bulk.Deletion(index, removals))
        with self._lock:
            self._pending.append(waiting)
            if len(self._pending) == 1:
                self._arrived.release()
        if not waiting.wait():
            alone = bulk.Deletion(index, removals)
            with Handle() as own:
                bulk.delete(own, [alone])
            if alone.error is not None:
                raise alone.error

    def _work(self) -> None:
        while True:
            self._arrived.acquire()
            failure = self._carry_out()
            with self._lock:
                left = [waiting for many in self._asked.values() for waiting in many]
                self._asked = {}
            for waiting in left:
                waiting.tell(failure or waiting.deletion.error)

    def _next_batch(self) -> list[bulk.Deletion]:
        """Take what is pending: from here on somebody is told of each, whatever fails."""
        with self._lock:
            batch, self._pending = self._pending, []
            for waiting in batch:
                self._asked.setdefault(waiting.deletion.index, []).append(waiting)
        return [waiting.deletion for waiting in batch]

    def _carry_out(self) -> Exception | None:
        """Delete what is pending, and listen for its end meanwhile; what failed for all of it."""
        try:
            batch = self._next_batch()
            self._hear(on=True)
            with Handle() as own:
                bulk.delete(own, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            return error
        finally:
            self._hear(on=False)
        return None

    def _hear(self, *, on: bool) -> bool:
        """Start or stop hearing of links; whether that worked.  Who hears nothing waits longer."""
        try:
            self._events.hear_links(on=on)
        except OSError:
            return False
        return True

    def _listen(self) -> None:
        while True:
            try:
                gone = [rtnl.end_of(message) for message in self._events.wait(None)]
            except Exception:  # noqa: BLE001 - the end of the batch tells those who still wait
                if self._hear(
                    on=False
                ):  # some were lost, and the rest would be about others' links
                    continue
                return
            with self._lock:
                found = [waiting for index in gone for waiting in self._asked.pop(index, [])]
                if found and not self._asked:
                    self._hear(on=False)
            for waiting in found:
                waiting.tell(None)

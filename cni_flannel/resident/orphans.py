"""ADDs whose launcher is gone: a DEL of the same attachment waits until they have ended.

A plugin that is killed does nothing more.  A launcher that is killed leaves its call behind, here;
it takes back what it did when it notices (``bridge.steps_claim``).  Until then it may lease an
address that the runtime's DEL has not seen, and if this process were killed too, the lease would
stay.  Where the launcher still waits, its ADD is no orphan: a DEL must get through while an ADD
hangs (docs/decisions/0013, 0024).
Imports: _thread, ``protocol``.
"""

from __future__ import annotations

import _thread

from cni_flannel.resident import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

PATIENCE_S = 10.0
"""As long as an ADD waits for another one's end."""


class Attachments:
    """The ADDs that are being served, by the attachment that they make."""

    __slots__ = ("_adds", "_lock")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._adds: dict[tuple[str, str], set[Call]] = {}

    def call(self, environ: Mapping[str, str], connection: int) -> Call:
        """A call that begins, as a context manager; entering that of a DEL waits for orphans."""
        key = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
        return Call(self, environ.get("CNI_COMMAND", ""), key, connection)

    def enter(self, call: Call) -> None:
        """Take note of an ADD."""
        with self._lock:
            self._adds.setdefault(call.key, set()).add(call)

    def leave(self, call: Call) -> None:
        """Forget an ADD that has ended."""
        with self._lock:
            there = self._adds[call.key]
            there.remove(call)
            if not there:
                del self._adds[call.key]

    def orphans(self, key: tuple[str, str]) -> list[Call]:
        """ADDs of an attachment that nobody waits for."""
        with self._lock:
            return [one for one in self._adds.get(key, ()) if one.is_orphan]


class Call:
    """One call while it is served; only those that are ADDs are kept."""

    __slots__ = ("_attachments", "_command", "_connection", "_ended", "key")

    def __init__(
        self, attachments: Attachments, command: str, key: tuple[str, str], connection: int
    ) -> None:
        self._attachments = attachments
        self._command = command
        self._connection = connection
        self._ended = _thread.allocate_lock()
        self.key = key

    def __enter__(self) -> Self:
        if self._command == "ADD":
            self._ended.acquire()
            self._attachments.enter(self)
        elif self._command == "DEL":
            for orphan in self._attachments.orphans(self.key):
                orphan.await_end()
        return self

    def __exit__(self, *_: object) -> None:
        if self._command == "ADD":
            self._attachments.leave(self)
            self._ended.release()

    @property
    def is_orphan(self) -> bool:
        """Whether its launcher has gone, or has given up."""
        return protocol.has_hung_up(self._connection)

    def await_end(self) -> None:
        """Wait until it has ended, for a bounded time."""
        if self._ended.acquire(timeout=PATIENCE_S):
            self._ended.release()

"""Whose turn it is: of the calls that have come, one works at a time.

A thread gives the interpreter's lock away at each system call, and 64 that want it hand it round at
every one of the hundred that an ADD makes.  One that works alone keeps it for nothing.  So calls
take turns, and give theirs away where they wait for others: a launcher, the deleter, a delegate.
A turn is a courtesy and no lock: who has waited ``PATIENCE_S`` for it goes on without, so that a
call that hangs holds up nobody for longer.
Imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _thread
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self, TypeVar

    T = TypeVar("T")

PATIENCE_S = 0.2


class Turn:
    """One call's turn, held within the block.  ``turns`` is the lock that all calls share."""

    __slots__ = ("_held", "_turns")

    def __init__(self, turns: _thread.LockType) -> None:
        self._turns = turns
        self._held = False

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give()

    def take(self) -> None:
        """Wait for the turn, but not for ever."""
        if not self._held:
            self._held = self._turns.acquire(timeout=PATIENCE_S)

    def without(self, wait: Callable[[], T]) -> T:
        """Wait for somebody else while another call goes on; what that gave."""
        self.give()
        try:
            return wait()
        finally:
            self.take()

    def give(self) -> None:
        """Let another call go on, if this one has the turn."""
        if self._held:
            self._held = False
            self._turns.release()

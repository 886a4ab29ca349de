"""What happens again and again is told at once, and then only how often: a digest for the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

WINDOW_S = 10.0


class Digest:
    """Things by their words.

    ``say`` gets how often each has happened, and in how many seconds: at once what has not
    happened within the last WINDOW_S, the rest at the end of each such time.
    """

    def __init__(self, say: Callable[[Mapping[str, int], float], None]) -> None:
        self._say = say
        self._again: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, things: Iterable[str]) -> None:
        """Count things that have happened together."""
        fresh: dict[str, int] = {}
        for thing in things:
            if thing in self._again:
                self._again[thing] += 1
            else:
                self._again[thing] = 0
                fresh[thing] = 1
        if fresh:
            self._say(fresh, 0)
        if self._again and self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self._end)

    def _end(self) -> None:
        again = {thing: times for thing, times in self._again.items() if times}
        self._again = dict.fromkeys(again, 0)
        self._timer = None
        if again:
            self._say(again, WINDOW_S)
            self._wait()


def listed(things: Mapping[str, int], most: int = 5) -> str:
    """Name things for one line, with their numbers: the first ones, and how many more there are."""
    named = [
        thing if times == 1 else f"{thing} ({times} times)"
        for thing, times in list(things.items())[:most]
    ]
    more = [f"{len(things) - most} more"] if len(things) > most else []
    return "; ".join([*named, *more])

"""How long the daemon lets others go first: between tries of a store, between two ticks.

Everything else waits for events; an outage has none, so tries are spread out, and jittered, that a
store which comes back is not met by all nodes at once.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NoReturn, TypeVar

from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

FIRST_S = 0.5
LONGEST_S = 30.0
SHORTEST_S = 0.5


def delays(first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> Iterator[float]:
    """Give seconds for ever: doubling up to the longest, each cut by up to a half at random."""
    delay = first_s
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        delay = min(2 * delay, longest_s)


def pause(error: StoreError, delay: float) -> float:
    """Give the seconds until the next try: the store's own, spread out, or else the delay."""
    if error.after_s is None:
        return delay
    return error.after_s * random.uniform(1.0, 2.0)  # noqa: S311 - no secret


async def patiently(
    what: str, call: Callable[[], Awaitable[T]], failed: Callable[[str], None]
) -> T:
    """Call until it succeeds; ``failed`` is told what is waited for, and of each StoreError."""
    for delay in delays():
        try:
            return await call()
        except StoreError as error:
            failed(f"waiting for {what}: {error}")
            await asyncio.sleep(pause(error, delay))
    raise AssertionError("the delays have no end")


async def every(
    seconds: float, work: Callable[[], Awaitable[None]], sooner: asyncio.Event | None = None
) -> NoReturn:
    """Do something now and again after each pause, for ever; ``sooner`` cuts a pause short.

    Even then a pause lasts SHORTEST_S, in which what comes together is gathered.
    """
    while True:
        await work()
        if sooner is None:
            await asyncio.sleep(seconds)
        else:
            await _set_within(seconds, sooner)
            await asyncio.sleep(SHORTEST_S)
            sooner.clear()


async def _set_within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return

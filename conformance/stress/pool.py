"""Work spread over processes, each with a place of its own, which ends with its process.

`spread` gives the items to `jobs` processes in turn; each makes its place once (a world with a
network in it, say) and hands it to the work. What a resident process in that world has served is
added to the work's tally. A worker dies with the process that started it, also when that one is
killed, and a world dies with the worker that holds it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from conformance.stress.figure import accounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PR_SET_PDEATHSIG = 1
_place: Any = None


def spread(
    jobs: int,
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    work: Callable[[Any, Any], Any],
    items: Iterable[Any],
) -> Iterator[Any]:
    """Yield `work(place, item)` for every item, in order; `place` is `make(*arguments)`."""
    if jobs <= 1:
        with make(*arguments) as place:
            for item in items:
                yield accounted(place.world, work(place, item))
        return
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _prepare, (os.getpid(), make, arguments)
    )
    with pool:
        # Ctrl-C is for the parent, which ends the workers; they are born deaf to it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            begun = [pool.submit(_work, (work, item)) for item in items]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            for one in begun:
                yield one.result()
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def _prepare(parent: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _place  # noqa: PLW0603 - a worker process has one place
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _place = make(*arguments)


def _work(task: tuple[Callable[[Any, Any], Any], Any]) -> Any:
    work, item = task
    return accounted(_place.world, work(_place, item))

"""How far a long run is: on a terminal a line that changes, elsewhere a line a minute.

A pipe or a log has no use for a line that changes, but whoever reads it wants to see that the run
lives. Some verbs have nothing to tell but the time.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY_S = 60.0
_WIDTH = 100
_last = ""


def show(text: str) -> None:
    """Say how far the work is."""
    global _last  # noqa: PLW0603 - a process has one terminal
    _last = text
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:_WIDTH]}", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Take the line away, before others are printed."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def told(name: str, every_s: float = _EVERY_S) -> Iterator[None]:
    """Where nobody watches, print a line every so often for as long as this lasts."""
    done = threading.Event()
    begun = time.monotonic()

    def tell() -> None:
        while not done.wait(every_s):
            seconds = f"{time.monotonic() - begun:.0f} s"
            print(f"{name}: {seconds} {_last}".rstrip(), file=sys.stderr, flush=True)

    if sys.stderr.isatty():
        yield
        return
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()

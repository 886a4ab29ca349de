"""Command lines: what is wrong with one is a line, not a page."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn

_DIGITS = 18


class Words(argparse.ArgumentParser):
    """A parser whose options are written in full, and whose complaints are one line."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"allow_abbrev": False, **options})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; --help shows what there is\n")


def positive(text: str) -> int:
    """Read a number from 1 on."""
    return _number(text, 1)


def natural(text: str) -> int:
    """Read a number from 0 on."""
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
    return int(text)


def duration(text: str) -> float:
    """Read seconds: more than none, and an end."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds

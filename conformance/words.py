"""Command lines: what is wrong with one is a line, not a page."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Words(argparse.ArgumentParser):
    """A parser whose options are written in full, and whose complaints are one line."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"allow_abbrev": False, **options})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; --help shows what there is\n")


def positive(text: str) -> int:
    """Read a number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)

"""A command's line: what is wrong with it is a line, not a page."""

from __future__ import annotations

import argparse
from typing import NoReturn

MISUSED = 2
"""Exit status of a command that was not understood."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(MISUSED, f"{self.prog}: {message}; --help shows what there is\n")

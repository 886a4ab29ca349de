"""Run the packet filter's own programs, with a bound on their time.

Knows nothing of rules.  A program is found on PATH and where the system keeps such programs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.rules import xtables_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
SLOW_S = 2.0
_TIMEOUT_S = 60.0  # longer than the programs themselves wait for the xtables lock


class RulesError(Exception):
    """A rule could not be read or written.  ``str`` says what was attempted, and the answer."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended, and what it printed."""

    status: int
    output: str
    complaint: str


class Programs:
    """The programs of one search path (as PATH spells it); they print in English.

    ``slow`` is told of each that has not ended after SLOW_S, and why if that can be seen.
    """

    def __init__(self, path: str, slow: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._slow = slow
        self._environ = {"PATH": path, "LC_ALL": "C"}
        if lock := os.environ.get(xtables_lock.VARIABLE):
            self._environ[xtables_lock.VARIABLE] = lock

    def has(self, name: str) -> bool:
        """Whether there is such a program."""
        return shutil.which(name, path=self.path) is not None

    async def run(self, argv: Sequence[str], text: str = "") -> Completed:
        """Run a program to its end with ``text`` as its input; RulesError if it cannot be."""
        found = shutil.which(argv[0], path=self.path)
        if found is None:
            raise RulesError(
                f"{argv[0]} is not installed (looked in {self.path}): install it, or choose the "
                'other packet filter with "EnableNFTables" in the network\'s configuration'
            )
        try:
            process = await asyncio.create_subprocess_exec(
                found,
                *argv[1:],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environ,
            )
        except OSError as error:  # no memory, no descriptors: another look may succeed
            raise RulesError(f"run {found}: {error.strerror}") from error
        telling = asyncio.get_running_loop().call_later(SLOW_S, self._tell, argv[0])
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                output, complaint = await process.communicate(text.encode())
        except TimeoutError as error:
            raise RulesError(f"{argv[0]} did not end within {_TIMEOUT_S:g} s") from error
        finally:
            telling.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Completed(
            await process.wait(),
            output.decode("utf-8", "surrogateescape"),
            complaint.decode("utf-8", "replace").strip(),
        )

    def _tell(self, name: str) -> None:
        if self._slow is not None:
            why = xtables_lock.holder() or "the machine or its packet filter is slow"
            self._slow(f"waiting for {name}: {why}")


def system(slow: Callable[[str], None] | None = None) -> Programs:
    """Take this process's own PATH, and where systems keep such programs."""
    own = os.environ.get("PATH", "")
    return Programs(f"{own}:{_SYSTEM}" if own else _SYSTEM, slow)

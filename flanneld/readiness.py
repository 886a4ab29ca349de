"""Whether a pod's packet gets through, as far as this node knows, and what is in its way.

Each part of the daemon reports all that it finds, whole each time; ``/readyz``, ``status``, the
metrics, the service manager and the log read it here.  A cause that blocks makes the node unready.
One that does not is told all the same: a single peer that publishes nonsense, a store that is away
while all that it has told still holds.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_log = logging.getLogger(__name__)
_OTHERS = ("keys", "peers")  # parts that may find very much


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing in the way: which part found it, what it is, since when (Unix time, seconds)."""

    part: str
    text: str
    since: float
    blocks: bool

    def __str__(self) -> str:
        return f"{self.text} (since {stamp(self.since)})"


def stamp(seconds: float) -> str:
    """Spell a Unix time as people read it, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class Readiness:
    """The causes of all parts.

    ``missing`` says of each part that must have reported once what is not known until then;
    ``changed`` is called after each change.
    """

    def __init__(self, missing: Mapping[str, str], changed: Callable[[], None]) -> None:
        now = time.time()
        self._changed = changed
        self._digest = Digest(_say)
        self._causes = {
            part: {text: Cause(part, text, now, blocks=True)} for part, text in missing.items()
        }
        self._silent = set(missing)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """All of them, those that block first, those of single neighbours last, then the oldest."""
        found = [cause for causes in self._causes.values() for cause in causes.values()]
        return tuple(
            sorted(found, key=lambda cause: (not cause.blocks, cause.part in _OTHERS, cause.since))
        )

    @property
    def ready(self) -> bool:
        """Whether nothing blocks."""
        return self.ready_but()

    def ready_but(self, *parts: str) -> bool:
        """Whether nothing blocks that another part than these has found."""
        return not any(cause.blocks and cause.part not in parts for cause in self.causes)

    def report(self, part: str, blocking: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        """Take all that a part finds wrong now; nothing says that all of it is right."""
        now, before = time.time(), self._causes.get(part, {})
        found = dict.fromkeys(others, False) | dict.fromkeys(blocking, True)
        causes = {
            text: Cause(part, text, before[text].since if text in before else now, blocks)
            for text, blocks in found.items()
        }
        first = part in self._silent
        self._silent.discard(part)
        if causes == before:
            return
        self._causes[part] = causes
        lines = [
            f"problem: {text}" if cause.blocks else text
            for text, cause in causes.items()
            if text not in before
        ]
        solved = [f"solved: {text}" for text in before if text not in causes and not first]
        self._digest.add([*lines, *solved])
        self._changed()


def _say(lines: Mapping[str, int], seconds: float) -> None:
    for line, times in lines.items():
        often = f" ({times} times in {seconds:.0f} s)" if times > 1 else ""
        level = logging.INFO if line.startswith("solved") else logging.WARNING
        _log.log(level, "%s%s", line, often)

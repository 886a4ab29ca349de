"""What a verb of the stress part is asked for, and what it tells at the end: a line with a figure.

Every verb has the same options and the same ending: `crash: 1806 kills tried, 0 leaks`, a line for
each failure above it, or the same as one JSON document, and exit status 0 or 1.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from conformance import progress
from conformance.options import Parser
from conformance.words import positive

if TYPE_CHECKING:
    import argparse

    from conformance.world import World


SERVED = "served by the resident process"
_SHOWN = 40  # failures printed one by one; a figure counts them all


def options(verb: str, summary: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all verbs have."""
    parser = Parser(prog=f"python -m conformance {verb}", description=summary)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument("--jobs", type=positive, default=2, help="worlds at work at the same time")
    return parser


class Tally(NamedTuple):
    """What one piece of work adds to a figure."""

    counts: dict[str, int]
    failures: list[str]


def accounted(world: World | None, tally: Tally) -> Tally:
    """Add to a tally what a world's resident process has served since the last time."""
    if world is None or world.resident is None:
        return tally
    served, problems = world.resident.account()
    return Tally(tally.counts | {SERVED: served}, [*tally.failures, *problems])


class Figure:
    """Counts in the order of their first mention, and the failures."""

    def __init__(self, verb: str, names: tuple[str, ...], *, as_json: bool) -> None:
        self.verb = verb
        self.as_json = as_json
        self.counts = dict.fromkeys(names, 0)
        self.failures: list[str] = []
        self.notes: list[str] = []
        self._start = time.monotonic()

    def count(self, name: str, number: int = 1) -> None:
        """Add to one of the counts."""
        self.counts[name] = self.counts.get(name, 0) + number

    def fail(self, line: str) -> None:
        """Note a failure; the first ones are shown at once."""
        self.failures.append(line)
        if not self.as_json and len(self.failures) <= _SHOWN:
            print(f"{self.verb}: FAIL {line}", flush=True)

    def note(self, line: str) -> None:
        """Tell something that bears on the figure and is no failure: what this machine lacks."""
        self.notes.append(line)
        if not self.as_json:
            print(f"{self.verb}: {line}", flush=True)

    def add(self, tally: Tally) -> None:
        """Take over what a piece of work found."""
        for name, number in tally.counts.items():
            self.count(name, number)
        for line in tally.failures:
            self.fail(line)

    def account(self, world: World) -> None:
        """Count the calls that a world's resident process has served, if it has one."""
        self.add(accounted(world, Tally({}, [])))

    def progress(self, text: str) -> None:
        """Show how far the work is."""
        progress.show(f"{self.verb}: {text}")

    def finish(self) -> int:
        """Print the figure; the exit status."""
        seconds = time.monotonic() - self._start
        progress.clear()
        if self.as_json:
            document = {
                "verb": self.verb,
                "seconds": round(seconds, 1),
                "counts": self.counts,
                "failures": self.failures,
                "notes": self.notes,
            }
            print(json.dumps(document, indent=2))
        else:
            figures = ", ".join(f"{number} {name}" for name, number in self.counts.items())
            print(f"{self.verb}: {figures}, {len(self.failures)} failures in {seconds:.0f} s")
        return 1 if self.failures else 0

"""A scene with launchers and a resident process, and what has to be true of its attachment.

The launcher's promise is that only speed changes, whatever becomes of the resident process. So an
ADD succeeds, and what it tells is there (CHECK says so); a DEL succeeds and leaves nothing; and no
call takes longer than the launcher waits for an answer, and the frozen plugin takes after that.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.stress.figure import options as usual_options
from conformance.stress.scene import Scene
from conformance.stress.verdict import brief, code_of, complaints

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from conformance.resident import Resident
    from conformance.stress.figure import Figure
    from conformance.world import Outcome

NOBODY = 65534
_PATIENCE_S = 30.0


def options(verb: str, summary: str) -> argparse.ArgumentParser:
    """Return a parser as all verbs have it; it is always the launchers that are called."""
    parser = usual_options(verb, summary)
    parser.set_defaults(resident=True)
    return parser


class Site(Scene):
    """A scene whose plugins are launchers."""

    deadline_s = 150.0

    @property
    def resident(self) -> Resident:
        """The process that serves."""
        assert self.world.resident is not None, "the plugins of this scene are no launchers"
        return self.world.resident

    def restart(self) -> None:
        """Make everything as new, the resident process too if it has ended."""
        if not self.resident.is_alive:
            self.resident.start()
        super().restart()

    def recover(self) -> None:
        """Make everything as new, the resident process too."""
        self.resident.kill()
        super().recover()

    def judge_add(self, done: Outcome) -> list[str]:
        """Say what is wrong with the answer of an ADD, or with what it says."""
        problems = complaints(done, document=True)
        if problems:
            return problems
        if done.status != 0:
            return [f"ADD did not succeed (code {code_of(done)}): {brief(done)}"]
        checked = self.call("CHECK", prevResult=done.result)
        return [] if checked.status == 0 else [f"CHECK after ADD: {brief(checked)}"]

    def judge_del(self, done: Outcome) -> list[str]:
        """Say what is wrong with the answer of a DEL, or what it has left."""
        if done.status != 0 or done.stdout:
            return [f"DEL did not succeed: {brief(done)}"]
        return self.left()

    def judge_life(self) -> list[str]:
        """ADD, CHECK and DEL, which must succeed; what was wrong."""
        problems = self.judge_add(self.call("ADD"))
        return problems + self.judge_del(self.call("DEL"))

    def settle(self) -> None:
        """Wait until nothing changes any more."""
        before = None
        while before != (before := self.traits()):
            continue


def possible(names: list[str], as_nobody: str, figure: Figure) -> list[str]:
    """Leave out, and tell of, what one has to be somebody else for: without root, nobody is."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if any(int(start) <= NOBODY < int(start) + int(count) for start, _, count in ranges):
        return names
    figure.note(f"this user namespace has no other user: {as_nobody!r} is left out")
    return [name for name in names if name != as_nobody]


def wait_until(holds: Callable[[], bool], patience_s: float = _PATIENCE_S) -> bool:
    """Wait until something holds; False if it does not in time."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True

"""What has to be true of an attachment when the resident process was in trouble during its calls.

The launcher's promise is that only speed changes. So an ADD succeeds, and what it tells is there
(CHECK says so); a DEL succeeds and leaves nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from conformance.stress.figure import options as usual_options
from conformance.stress.verdict import brief, code_of, complaints

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from conformance.resident import Resident
    from conformance.stress.scene import Scene
    from conformance.world import Outcome

_PATIENCE_S = 30.0


def options(verb: str, summary: str) -> argparse.ArgumentParser:
    """Return a parser as all verbs have it; it is always the launchers that are called."""
    parser = usual_options(verb, summary)
    parser.set_defaults(resident=True)
    return parser


def resident_of(scene: Scene) -> Resident:
    """Return the resident process of a scene, which must have one."""
    assert scene.world.resident is not None
    return scene.world.resident


def judge_add(scene: Scene, done: Outcome) -> list[str]:
    """Say what is wrong with the answer of an ADD, or with what it says."""
    problems = complaints(done, document=True)
    if problems:
        return problems
    if done.status != 0:
        return [f"ADD did not succeed (code {code_of(done)}): {brief(done)}"]
    checked = scene.call("CHECK", prevResult=done.result)
    return [] if checked.status == 0 else [f"CHECK after ADD: {brief(checked)}"]


def judge_del(scene: Scene, done: Outcome) -> list[str]:
    """Say what is wrong with the answer of a DEL, or what it has left."""
    if done.status != 0 or done.stdout:
        return [f"DEL did not succeed: {brief(done)}"]
    return scene.left()


def judge_life(scene: Scene) -> list[str]:
    """ADD, CHECK and DEL, which nobody disturbs and the resident process must serve."""
    problems = judge_add(scene, scene.call("ADD"))
    return problems + judge_del(scene, scene.call("DEL"))


def wait_until(holds: Callable[[], bool], patience_s: float = _PATIENCE_S) -> bool:
    """Wait until something holds; False if it does not in time."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True

"""Batches of inputs for one reader: what a worker process of `python -m tests.fuzz` does."""

from __future__ import annotations

from typing import Self

from hypothesis import HealthCheck, Phase, given, seed, settings

from conformance.stress.figure import Tally
from tests.fuzz.targets import TARGETS


class Nothing:
    """The place of work that needs none."""

    world = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def fuzz(_place: object, batch: tuple[str, int, int]) -> Tally:
    """One target, a number of inputs, a seed; the smallest input that breaks the rule."""
    name, number, from_seed = batch
    tried = 0
    target = TARGETS[name]

    def check(value: object) -> None:
        nonlocal tried
        tried += 1
        target.check(value)

    rules = settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        seed(from_seed)(rules(given(target.inputs)(check)))()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
        notes = " ".join(" ".join(getattr(error, "__notes__", [])).split())
        return Tally({"inputs": tried}, [f"{name}: {error!r} {notes} (seed {from_seed})"])
    return Tally({"inputs": tried}, [])

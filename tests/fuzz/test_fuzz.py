"""The short form of the fuzzing in this process; `python -m tests.fuzz` has the long one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_readers_refuse_noise_in_their_own_words(name: str) -> None:
    target = TARGETS[name]
    rules = settings(max_examples=150, suppress_health_check=list(HealthCheck))
    rules(given(target.inputs)(target.check))()

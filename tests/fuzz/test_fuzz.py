"""The short form of the fuzzing in this process; `python -m tests.fuzz` has the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_readers_refuse_noise_in_their_own_words(name: str) -> None:
    target = TARGETS[name]
    rules = settings(max_examples=150, suppress_health_check=list(HealthCheck))
    rules(given(target.inputs)(target.check))()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_long_form_runs(jobs: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "30", "--jobs", jobs, "--seed", "1"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " inputs, 0 failures" in done.stdout

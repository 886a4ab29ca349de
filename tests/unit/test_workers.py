"""A worker that dies costs the test it dies of, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.workers import GRACE_S

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from tests import workers
from tests.workers import pytest_runtest_protocol, pytest_sessionstart, pytest_xdist_make_scheduler
workers.GRACE_S = 0.5
"""

TESTS = """
import os
import signal
import time
import pytest

def test_hears_signals():
    assert signal.SIG_IGN not in map(signal.getsignal, (1, 2, 3))

@pytest.mark.parametrize("number", range(30))
def test_passes(number):
    pass

@pytest.mark.parametrize("number", range(2))
def test_ends_its_process(number):
    os._exit(3)

@pytest.mark.timeout(0.1)
def test_swallows_its_limit():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

@pytest.mark.parametrize("number", range(30, 60))
def test_passes_after(number):
    pass
"""


def ignore() -> None:
    """As nohup(1) does, and a shell that starts a program in the background."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def test_a_run_goes_on_without_the_workers_that_die(tmp_path: Path) -> None:
    assert GRACE_S >= 60
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_workers.py").write_text(TESTS)
    options = ["-n", "2", "-q", "-o", "timeout=60", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        check=False,
        text=True,
        timeout=200,
        preexec_fn=ignore,
    )
    said = done.stdout + done.stderr
    assert "3 failed, 61 passed" in said, said
    assert "test_swallows_its_limit" in said
    assert done.returncode == 1

"""`--version` of all three programs, frozen: which build this is, alone on stdout."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.budget.installing import BUILT, PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.frozen

PROGRAMS = [BUILT / "flannel", BUILT / "host-local", PROGRAM]
LINE = re.compile(
    r"(cni-flannel|flanneld) ([\d.]+\+[0-9a-f]{8}), commit (?:[0-9a-f]{7,}(?:\+changes)?|unknown),"
    r" (\w+), python (3\.\d+\.\d+)\n"
)


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    if not found.exists():
        pytest.skip(f"{found} is not built: run ./build.sh")
    return found


def version(program: Path, **variables: str) -> re.Match[str]:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, env=variables
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = LINE.fullmatch(done.stdout)
    assert found, done.stdout
    return found


def test_it_says_version_commit_architecture_and_python(program: Path) -> None:
    found = version(program)
    assert found[1] == ("flanneld" if program.name == "flanneld" else "cni-flannel")
    assert found[3] == platform.machine()


def test_no_environment_changes_it(program: Path) -> None:
    hostile = {"LC_ALL": "C", "PYTHONHOME": "/", "PYTHONPATH": "/nonexistent", "TERM": "dumb"}
    assert version(program, **hostile)[0] == version(program)[0]


def test_the_pair_is_of_one_build() -> None:
    if not PROGRAMS[0].exists():
        pytest.skip(f"{PROGRAMS[0]} is not built: run ./build.sh")
    assert version(PROGRAMS[0])[0] == version(PROGRAMS[1])[0]
    assert version(PROGRAMS[0])[2] == os.readlink(BUILT / ".cni-flannel" / "current")

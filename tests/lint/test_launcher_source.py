"""The launcher stays what it is: small, without warnings, and with no place for a second idea."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "packaging" / "launcher" / "launcher.c"
LONGEST = 200
STRICT = [
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Werror",
]


def test_it_fits_one_sitting() -> None:
    assert len(SOURCE.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", ["cc", "musl-gcc"])
def test_the_compiler_is_content(name: str, tmp_path: Path) -> None:
    compiler = shutil.which(name)
    if compiler is None:
        pytest.skip(f"no {name}")
    command = [compiler, *STRICT, "-static", "-o", str(tmp_path / "launcher"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

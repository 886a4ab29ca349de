"""The programs in C stay what they are: small, without warnings, one idea each."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "launcher"
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


@pytest.mark.parametrize("source", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_it_fits_one_sitting(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= LONGEST


def compiled(name: str, *words: str | Path) -> None:
    compiler = shutil.which(name)
    if compiler is None:
        pytest.skip(f"no {name}")
    done = subprocess.run([compiler, *STRICT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["cc", "musl-gcc"])
def test_the_compiler_is_content_with_the_launcher(name: str, tmp_path: Path) -> None:
    sources = [FOLDER / "launcher.c", FOLDER / "frozen.c"]
    compiled(name, "-static", "-o", tmp_path / "launcher", *sources)


def test_the_compiler_is_content_with_the_interpreter(tmp_path: Path) -> None:
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        pytest.skip(f"no Python.h in {include}")
    # its headers themselves convert
    compiled("cc", "-isystem", include, "-c", "-o", tmp_path / "python.o", FOLDER / "python.c")

"""The linters are tests: one run says everything, and nobody has to remember a second command."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["build.sh", ".ci/run"]
SOURCES = ["cni", "ipam", "netlink", "cni_flannel", "flanneld"]
LINTERS = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check", "--diff"],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports", "--no-cache"],
    "codespell": ["codespell"],
    "shellcheck": ["shellcheck", *SCRIPTS],
}
LONGEST_FILE = 300
LONGEST_FUNCTION = 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LINTERS)
def test_linter_is_content(name: str) -> None:
    program, *arguments = LINTERS[name]
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = shutil.which(program, path=tools)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def sources() -> list[Path]:
    return sorted(file for folder in SOURCES for file in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_file_fits_one_sitting(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}

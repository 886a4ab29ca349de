"""Resident mode, the short forms: the same cases and stress through launchers, then its own.

The full forms are `./build.sh conformance`. Which calls were served by the resident process, and
that none of them was done by a launcher itself, is part of every figure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conformance.__main__ import main
from conformance.options import DEFAULT_BIN_DIR
from conformance.stress.figure import SERVED

BIN_DIR = Path(os.environ.get("CNI_FLANNEL_BIN", DEFAULT_BIN_DIR))
SOURCES = [
    Path(__file__).resolve().parents[2] / "packaging" / "launcher" / name
    for name in ("launcher.c", "frozen.c")
]
IMPATIENT_MS = 2000

SHORT = {
    "storm": ["--attachments", "60", "--workers", "24"],
    "soak": ["--cycles", "40"],
    "fuzz": ["--calls", "30"],
    "hostile": ["--every", "13"],
    "runtime": ["--quick", "--spec", "1.1.0"],
    "crash": ["--every", "7", "--kind", "v4-neighbour"],
    "fault": ["--every", "29", "--kind", "dual-nftables"],
    "server-crash": ["--every", "23", "--kind", "v4-neighbour"],
    "server-trouble": ["--quick"],
    "server-kills": ["--calls", "250"],
    "server-hostile": [],
    "server-soak": ["--calls", "1600", "--warm", "800"],
}

pytestmark = [pytest.mark.kernel, pytest.mark.frozen, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not (BIN_DIR / "flannel").exists():
        pytest.skip(f"{BIN_DIR}/flannel is not built: run ./build.sh")


def with_launcher(tmp_path: Path, definition: str) -> Path:
    """The pair with another launcher."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path / "pair"
    shutil.copytree(BIN_DIR, folder, symlinks=True)
    words = ["-std=c11", "-static", "-O2", f"-D{definition}", "-o", str(folder / "flannel")]
    subprocess.run([compiler, *words, *SOURCES], check=True)
    return folder


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """The pair with a launcher that waits for an answer a short time only."""
    return with_launcher(tmp_path, f"ANSWER_MS={IMPATIENT_MS}")


def figure_of(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Run a verb that must succeed; what it counted."""
    status = main([*words, "--resident", "--json"])
    figure = json.loads(capfd.readouterr().out)
    assert figure["failures"] == []
    assert status == 0
    counts: dict[str, Any] = figure["counts"]
    return counts


@pytest.mark.parametrize("area", ["flannel", "host-local", "protocol"])
def test_passes_the_cases_of(area: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--resident", "--bin-dir", str(BIN_DIR), "--case", f"{area}/*", "--jobs", "2"]
    plugin = "host-local" if area == "host-local" else "flannel"
    status = main([*words, "--plugin", plugin])
    printed = capfd.readouterr()
    assert printed.err == ""
    assert status == 0
    assert " 0 failed" in printed.out
    assert "the resident process served " in printed.out


@pytest.mark.parametrize("verb", SHORT)
def test_holds(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    counts = figure_of(capfd, verb, "--bin-dir", str(BIN_DIR), *SHORT[verb])
    assert counts[SERVED] > 0
    if "KILLs tried" in counts:
        assert counts["not reached"] <= counts["KILLs tried"] // 4


def test_a_process_that_is_stopped_in_a_call(
    impatient: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--kind", "v4", "--every", "1000000", "--stops", "2", "--bin-dir", str(impatient)]
    assert figure_of(capfd, "server-crash", *options)["STOPs tried"] == 4


@pytest.mark.parametrize("manner", ["greets and is silent", "asks for ever"])
def test_a_stranger_who_never_replies(
    manner: str, impatient: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--trouble", manner, "--bin-dir", str(impatient)]
    assert figure_of(capfd, "server-trouble", *options)["troubles"] == 1


def test_a_launcher_that_does_the_work_itself_is_found_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that knows no verb which could be served answers everything rightly."""
    folder = with_launcher(tmp_path, 'SERVED=""')
    words = ["run", "--resident", "--bin-dir", str(folder), "--case", "flannel/address-reused"]
    assert main(words) == 1
    assert "of ADD were not served by the resident process" in capfd.readouterr().err

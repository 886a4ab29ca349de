"""Chained plugins with real traffic, the short form: each plugin fails at one DEL."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conformance.__main__ import main
from conformance.options import DEFAULT_BIN_DIR

BIN_DIR = Path(os.environ.get("CNI_FLANNEL_BIN", DEFAULT_BIN_DIR))

pytestmark = [pytest.mark.kernel, pytest.mark.frozen, pytest.mark.timeout(600)]


@pytest.mark.parametrize("version", ["0.3.1", "1.1.0"])
def test_a_chain_works_and_leaves_nothing(version: str, capfd: pytest.CaptureFixture[str]) -> None:
    if not (BIN_DIR / "flannel").exists():
        pytest.skip(f"{BIN_DIR}/flannel is not built: run ./build.sh")
    words = ["runtime", "--bin-dir", str(BIN_DIR), "--json", "--quick", "--spec", version]
    status = main(words)
    figure = json.loads(capfd.readouterr().out)
    assert figure["failures"] == []
    assert status == 0
    assert figure["counts"]["connections"] > 20
    assert figure["counts"]["collections"] == (2 if version == "1.1.0" else 0)
    assert not any("kernel lacks" in note for note in figure["notes"]), figure["notes"]

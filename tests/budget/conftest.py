"""The built folder, for the tests of what it holds and costs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder() -> Path:
    where = os.environ.get("CNI_FLANNEL_BIN", "")
    built = Path(where if where.startswith("/") else ROOT / "dist" / "cni-flannel")
    if not (built / "flannel").exists():
        pytest.skip(f"{built} is not built: run ./build.sh")
    return built

"""The short forms of the stress verbs: a sample of every kill and fault, a small storm, some noise.

The full forms are `./build.sh conformance`. Each verb prints its figure and the failures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conformance.__main__ import main
from conformance.options import DEFAULT_BIN_DIR

BIN_DIR = Path(os.environ.get("CNI_FLANNEL_BIN", DEFAULT_BIN_DIR))

SHORT = {
    "crash": ("crash", ["--every", "61", "--kind", "v4-neighbour", "--kind", "dual-iptables"]),
    "fault": ("fault", ["--every", "43", "--kind", "v4-neighbour", "--kind", "dual-nftables"]),
    "storm": ("storm", ["--attachments", "60", "--workers", "24"]),
    "soak": ("soak", ["--cycles", "40"]),
    "fuzz": ("fuzz", ["--calls", "40"]),
    "hostile": ("hostile", ["--every", "7"]),
}

pytestmark = [pytest.mark.kernel, pytest.mark.frozen, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", SHORT)
def test_pair_holds(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    verb, options = SHORT[name]
    if not (BIN_DIR / "flannel").exists():
        pytest.skip(f"{BIN_DIR}/flannel is not built: run ./build.sh")
    status = main([verb, "--bin-dir", str(BIN_DIR), "--json", *options])
    figure = json.loads(capfd.readouterr().out)
    assert figure["failures"] == []
    assert status == 0
    assert all(figure["counts"].get(what, 1) for what in ("kills tried", "calls", "tricks"))

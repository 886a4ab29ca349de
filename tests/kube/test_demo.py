"""The demonstration, as a person starts it: on a dual-stack network, so that this is tried too."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab.space import ROOT

if TYPE_CHECKING:
    from pathlib import Path


_NOT_READY = r"^  node\d .* NotReady: .*cni plugin not"
_READY = r"^  node\d .* Ready, pods in 10\S+ fd00\S+$"


def test_the_demonstration(programs: Path) -> None:
    assert programs.is_dir()
    words = ("--nodes", "2", "--families", "46", "--backend", "host-gw")
    shown = subprocess.run(
        [sys.executable, "-m", "tests.kube", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(re.findall(_NOT_READY, shown.stdout, re.MULTILINE)) == 2
    assert len(re.findall(_READY, shown.stdout, re.MULTILINE)) == 2
    rows = re.findall(r"^  web(\d) +IPv([46]) +\d+\.\d +\d+\.\d$", shown.stdout, re.MULTILINE)
    assert sorted(rows) == [("1", "4"), ("1", "6"), ("2", "4"), ("2", "6")]
    assert re.search(r"answered by\n  web1 \d+, web2 \d+$", shown.stdout, re.MULTILINE)
    assert re.search(r"afterwards 0 tasks, 0 namespaces", shown.stdout)

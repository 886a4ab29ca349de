"""The demonstration of several nodes, as a person starts it, and the table of figures."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.space import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


def lab(*words: str, as_user: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the lab's program, as somebody else if a user id is given."""
    user = (f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups")
    return subprocess.run(
        ["setpriv", *user, sys.executable, "-B", "-m", "tests.lab", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("backend", "user"), [("vxlan", 65534), ("host-gw", 0), ("udp", 0)])
def test_the_demonstration(new_cluster: Callable[..., Cluster], backend: str, user: int) -> None:
    assert new_cluster is not None, "what a lab needs is there"
    shown = lab("demo", "--nodes", "2", "--backend", backend, as_user=user)
    assert shown.returncode == 0, shown
    rows = re.findall(r"^ +pod(\d)a +IPv4((?: +\d+\.\d)+)$", shown.stdout, re.MULTILINE)
    assert [(number, len(times.split())) for number, times in rows] == [("1", 2), ("2", 2)]
    assert "flanneld has put it right" in shown.stdout
    assert shown.stderr == ""


def test_a_figure_that_does_not_hold_fails_the_table(
    new_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert new_cluster is not None, "what a lab needs is there"
    good = lab("mixed")
    assert good.returncode == 0, good
    assert "| with a node as Go makes it: pods that reach pods | 9 of 9 | `mixed` |" in good.stdout
    monkeypatch.setenv("FLANNELD_BIN", "/bin/false")
    bad = lab("mixed")
    assert bad.returncode == 1
    assert "| **failed** | see above | `mixed` |" in bad.stdout

"""What earlier builds left goes when nobody uses it, and when that can be known."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from flanneld.installation import earlier

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    ".cni-flannel-0.1.0+00000000": earlier.remove_pairs,
    "cni-flannel/.cni-flannel-0.1.0+00000000": earlier.remove_pairs,
    ".flanneld-00000000": earlier.remove_daemons,
}


@pytest.fixture
def _all_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a PID namespace of their own, where others cannot be seen."""
    monkeypatch.setattr(earlier, "_FIRST_PID_NAMESPACE", os.readlink("/proc/self/ns/pid"))


def left(folder: Path, kind: str) -> Path:
    """Make what a build has left; its folder below ``folder``."""
    old = folder / kind
    (old / "_internal").mkdir(parents=True)
    (old / "MARKER").write_text("cni-flannel 0.1.0\n")
    shutil.copy("/usr/bin/sleep", old / "program")
    return old


@pytest.mark.usefixtures("_all_are_seen")
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_when_nobody_uses_it(tmp_path: Path, kind: str) -> None:
    old, said = left(tmp_path, kind), list[str]()
    (tmp_path / ".cni-flannel-of-somebody-else").mkdir()
    (tmp_path / ".flanneld-of-somebody-else").mkdir()
    (tmp_path / ".tmp-cni-flannel.17").mkdir()
    (tmp_path / ".tmp-flanneld.17").mkdir()
    with subprocess.Popen([old / "program", "300"]) as running:
        try:
            KINDS[kind](str(tmp_path), said.append)
        finally:
            running.kill()
    assert old.exists()
    assert [line.split()[0] for line in said] == ["kept"]
    KINDS[kind](str(tmp_path), said.append)
    assert [line.split()[0] for line in said] == ["kept", "removed"]
    others = ".tmp-flanneld.17" if "cni" in kind else ".tmp-cni-flannel.17"
    assert sorted(os.listdir(tmp_path)) == [
        ".cni-flannel-of-somebody-else",
        ".flanneld-of-somebody-else",
        others,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_when_processes_cannot_be_seen(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "_FIRST_PID_NAMESPACE", "pid:[1]")
    old, said = left(tmp_path, kind), list[str]()
    KINDS[kind](str(tmp_path), said.append)
    assert old.exists()
    assert "may be in use; the next installation removes it" in said[0]

"""The cache of Kubernetes' programs: two builders at once, one that is killed, a file that rots.

What compiles is replaced by a shell that takes its time; all else is as in a real build.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kube import binaries
from tests.lab.space import ROOT, until

if TYPE_CHECKING:
    from pathlib import Path

# A build that notes its beginning and ends when a file appears.
_BUILDER = """
import sys
from pathlib import Path
from tests.kube import binaries
def compile_slowly(workshop):
    with Path(sys.argv[1]).open("a") as notes:
        notes.write("begun\\n")
    names = " ".join(binaries.PROGRAMS)
    wait = f"until [ -e {sys.argv[2]} ]; do sleep 0.05; done"
    workshop.run("sh", "-c", f"{wait}; mkdir bin; for name in {names}; do echo it >bin/$name; done")
    return workshop.path / "bin"
binaries._compile = compile_slowly
print(binaries.build())
"""


class Builders:
    """Builders in processes of their own, with one cache."""

    def __init__(self, folder: Path) -> None:
        self.notes, self.go = folder / "notes", folder / "go"
        self.cache = folder / "cache"

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _BUILDER, str(self.notes), str(self.go)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begun(self) -> int:
        return self.notes.read_text().count("begun") if self.notes.exists() else 0


@pytest.fixture
def builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builders:
    made = Builders(tmp_path)
    monkeypatch.setenv("CNI_FLANNEL_CACHE", str(made.cache))
    return made


def test_of_two_builders_one_builds(builders: Builders) -> None:
    one, two = builders.start(), builders.start()
    until("a build has begun", lambda: builders.begun() > 0)
    builders.go.touch()
    told = [builder.communicate(timeout=60)[0].strip() for builder in (one, two)]
    assert told == [str(binaries.folder())] * 2
    assert builders.begun() == 1
    assert binaries.is_built()
    names = [file.name for file in builders.cache.iterdir()]
    assert sorted(names) == sorted([binaries.folder().name, "kubernetes.lock", "kubernetes.log"])


def test_a_build_that_is_killed_is_done_again(builders: Builders) -> None:
    one = builders.start()
    until("the build has begun", lambda: builders.begun() == 1)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    assert not binaries.is_built()
    builders.go.touch()
    told, _ = builders.start().communicate(timeout=60)
    assert told.strip() == str(binaries.folder())
    assert builders.begun() == 2
    assert not (builders.cache / "building").exists()


def test_programs_that_have_changed_are_built_again(builders: Builders) -> None:
    builders.go.touch()
    builders.start().communicate(timeout=60)
    (binaries.folder() / "kubelet").write_text("rotten")
    assert not binaries.is_built()
    builders.start().communicate(timeout=60)
    assert binaries.is_built()
    assert builders.begun() == 2


@pytest.mark.usefixtures("builders")
def test_a_build_that_fails_says_where_its_log_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(workshop: binaries._Workshop) -> Path:
        workshop.run("sh", "-c", "echo no space left; exit 1")
        return workshop.path

    monkeypatch.setattr(binaries, "_compile", fail)
    with pytest.raises(binaries.BuildError, match=r"kubernetes.log ends with:\nno space left"):
        binaries.build()
    assert not binaries.is_built()

"""`install --daemon` beside a running daemon: it keeps its build, the next one has the new."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.budget.mounts import without_systemd

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "dist" / "flanneld"
INSTALL = ROOT / "packaging" / "install-flanneld.sh"


def install(source: Path, target: Path) -> str:
    return without_systemd(INSTALL, source, target)


def refused(source: Path, target: Path) -> str:
    done = subprocess.run([INSTALL, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def folders(target: Path) -> list[str]:
    return sorted(path.name for path in target.glob(".*"))


def build(folder: Path, content: str) -> Path:
    """A program that answers --version and runs as long as it is told, and a part of it."""
    (folder / "_internal").mkdir(parents=True)
    (folder / "_internal" / "part").write_text(content)
    shutil.copy("/usr/bin/sleep", folder / "flanneld")
    return folder


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
@pytest.mark.frozen
def test_the_installed_daemon_answers(tmp_path: Path) -> None:
    if not (BUILT / "flanneld").exists():
        pytest.skip(f"{BUILT} is not built: run ./build.sh")
    target = tmp_path / "lib" / "flanneld"
    install(BUILT, target)
    done = subprocess.run(
        [target / "flanneld", "status"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "flanneld has not run since this node booted" in done.stderr
    assert f"ExecStart={target}/flanneld\n" in (target / "flanneld.service").read_text()


@needs_root
def test_a_running_daemon_keeps_its_build_until_it_ends(tmp_path: Path) -> None:
    target = tmp_path / "lib"
    (target / ".tmp-flanneld.1").mkdir(parents=True)  # of an installation that was killed
    install(build(tmp_path / "one", "1"), target)
    (old,) = folders(target)
    assert (target / "flanneld").resolve() == target / old / "flanneld"
    with subprocess.Popen([target / "flanneld", "300"]) as daemon:
        said = install(build(tmp_path / "two", "2"), target)
        assert f"kept {target / old}" in said
        assert (target / old / "_internal" / "part").read_text() == "1"
        assert (target / "flanneld").resolve().parent.joinpath("_internal/part").read_text() == "2"
        daemon.kill()
    assert f"removed {target / old}" in install(tmp_path / "two", target)
    assert len(folders(target)) == 1


@needs_root
def test_a_damaged_build_is_put_right_unless_it_is_in_use(tmp_path: Path) -> None:
    source, target = build(tmp_path / "one", "1"), tmp_path / "lib"
    install(source, target)
    (name,) = folders(target)
    part = target / name / "_internal" / "part"
    part.write_text("damaged")
    with subprocess.Popen([target / "flanneld", "300"]) as daemon:
        assert "is damaged, and in use: stop flanneld first" in refused(source, target)
        daemon.kill()
    install(source, target)
    assert part.read_text() == "1"


@needs_root
def test_what_does_not_answer_replaces_nothing(tmp_path: Path) -> None:
    target = tmp_path / "lib"
    install(build(tmp_path / "one", "1"), target)
    before = (target / "flanneld").resolve()
    broken = build(tmp_path / "two", "2")
    shutil.copy("/bin/false", broken / "flanneld")
    for source, said in ((broken, "does not answer --version"), (tmp_path, "holds no built")):
        assert said in refused(source, target)
    assert (target / "flanneld").resolve() == before

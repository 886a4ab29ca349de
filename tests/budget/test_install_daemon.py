"""`install --daemon`: a daemon that runs keeps its build; what does not run replaces nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.budget.installing import PROGRAM, run, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.frozen, pytest.mark.timeout(600)]

BASE = ".flanneld"


@pytest.fixture(autouse=True)
def _built() -> None:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built: run ./build.sh")


def build(folder: Path, number: int) -> Path:
    """A program that runs as long as it is told, and a part of it."""
    (folder / "_internal").mkdir(parents=True)
    (folder / "_internal" / "part").write_text(str(number))
    (folder / "MARKER").write_text(f"flanneld 0.1.0+{number:08}, commit c, x86_64, python 3.11.2\n")
    shutil.copy("/usr/bin/sleep", folder / "flanneld")
    return folder


def install(source: Path, target: Path) -> str:
    done = run("--daemon", "--no-units", "--from", source, target)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextlib.contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon that is killed in the end."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


def test_the_installed_daemon_answers(tmp_path: Path) -> None:
    target = tmp_path / "lib" / "flanneld"
    install(PROGRAM.parent, target)
    done = subprocess.run(
        [target / "flanneld", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == (PROGRAM.parent / "MARKER").read_text()
    assert sorted(os.listdir(target)) == [BASE, "flanneld"]


def test_a_running_daemon_keeps_its_build_until_it_ends(tmp_path: Path) -> None:
    target = tmp_path / "lib"
    (target / BASE / "tmp.killed").mkdir(parents=True)  # of an installation that was killed
    install(build(tmp_path / "one", 1), target)
    old = target / BASE / "0.1.0+00000001"
    assert (target / "flanneld").resolve() == old / "flanneld"
    with running(target / "flanneld", "300"):
        assert f"kept {old}" in install(build(tmp_path / "two", 2), target)
        assert (old / "_internal" / "part").read_text() == "1"
        assert (target / "flanneld").resolve().parent.joinpath("_internal/part").read_text() == "2"
    assert f"removed {old}" in install(tmp_path / "two", target)
    assert len(os.listdir(target / BASE)) == 2


def test_the_real_daemon_holds_its_build(tmp_path: Path) -> None:
    """By a lock, which is seen from where its process is not."""
    target = tmp_path / "lib"
    install(PROGRAM.parent, target)
    (old,) = set(os.listdir(target / BASE)) - {"current", "made"}
    command = [str(target / "flanneld"), "--etcd-endpoints", "http://127.0.0.1:1"]
    command += [
        "--iface",
        "lo",
        "--subnet-file",
        str(tmp_path / "subnet.env"),
        "--data-dir",
        str(tmp_path),
    ]
    with running(*command) as daemon:
        assert daemon.stderr is not None
        assert "flanneld starts" in daemon.stderr.readline()
        words = [str(PROGRAM), "install", "--daemon", "--no-units", "--from"]
        words += [str(build(tmp_path / "two", 2)), str(target)]
        hidden = ["unshare", "--fork", "--pid", "--mount-proc"] if os.geteuid() == 0 else []
        done = subprocess.run([*hidden, *words], capture_output=True, text=True, check=True)
        assert f"kept {target}/{BASE}/{old}" in done.stdout


def test_a_damaged_build_is_put_right_beside_the_one_in_use(tmp_path: Path) -> None:
    source, target = build(tmp_path / "one", 1), tmp_path / "lib"
    install(source, target)
    part = target / BASE / "0.1.0+00000001" / "_internal" / "part"
    part.write_text("damaged")
    with running(target / "flanneld", "300"):
        assert "kept" in install(source, target)
        healed = (target / "flanneld").resolve()
        assert healed.parent.joinpath("_internal/part").read_text() == "1"
        assert part.read_text() == "damaged"
    install(source, target)
    assert not part.exists()


def test_what_does_not_answer_replaces_nothing(tmp_path: Path) -> None:
    target = tmp_path / "lib"
    install(build(tmp_path / "one", 1), target)
    before = tree(target)
    broken = build(tmp_path / "two", 2)
    shutil.copy("/bin/false", broken / "flanneld")
    for source, said in ((broken, "does not answer --version"), (tmp_path, "is no build")):
        done = run("--daemon", "--no-units", "--from", source, target)
        assert (done.returncode, said in done.stderr) == (1, True)
    assert tree(target) == before


def test_a_flanneld_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "flanneld").write_bytes(b"Go's")
    done = run("--daemon", "--no-units", tmp_path)
    assert (done.returncode, os.listdir(tmp_path)) == (1, ["flanneld"])
    assert "is not ours" in done.stderr


def test_uninstall_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "lib" / "flanneld"
    install(build(tmp_path / "one", 1), target)
    done = run("--daemon", "--uninstall", "--no-units", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert not target.exists()


def test_uninstall_waits_for_what_runs_and_then_says_so(tmp_path: Path) -> None:
    """`builds` too are for it: nothing is pulled away under a program that runs."""
    target = tmp_path / "lib"
    install(build(tmp_path / "one", 1), target)
    with running(target / "flanneld", "300"):
        done = run("--daemon", "--uninstall", "--no-units", target)
        assert done.returncode == 1
        assert "from which a flanneld runs" in done.stdout
    assert run("--daemon", "--uninstall", "--no-units", target).returncode == 0
    assert not target.exists()

"""`install` next to a working node.

Calls never fail, older builds go when nobody uses them, and others' files stay, or come back.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.budget.installing import (
    BASE,
    BUILT,
    GO,
    PROGRAM,
    PROGRAMS,
    answers,
    builds,
    install,
    other_build,
    run,
    tree,
)
from tests.budget.mounts import in_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.frozen, pytest.mark.timeout(600)]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
CALLS = int(os.environ.get("CALLS", "150"))  # 2000 is the full form
KILLS = int(os.environ.get("KILLS", "8"))
ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c",
    "CNI_NETNS": "/run/netns/none",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/x",
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two builds: the real one, and a copy under a name of its own as another build would have."""
    if not (BUILT / "flannel").exists() or not PROGRAM.exists():
        pytest.skip(f"{BUILT} is not built: run ./build.sh")
    return BUILT, other_build(tmp_path_factory.mktemp("other") / "cni-flannel")


@pytest.fixture
def used(two: tuple[Path, Path], tmp_path: Path) -> Iterator[Path]:
    """A folder with the other build, which a call uses."""
    install(two[1], tmp_path)
    call = subprocess.Popen(
        [tmp_path / "flannel"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ADD
    )
    link = f"/proc/{call.pid}/exe"
    while not os.readlink(link).endswith("/ld.so"):
        os.sched_yield()
    yield tmp_path
    out, _ = call.communicate(b'{"cut off', timeout=60)
    assert b'"code": 6' in out


def test_installed_programs_answer(two: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "opt" / "cni" / "bin"
    install(two[0], target)
    assert sorted(path.name for path in target.iterdir()) == [BASE, *PROGRAMS]
    assert builds(target) == builds(two[0])
    assert all(answers(target / program) for program in PROGRAMS)


def test_target_may_be_a_link(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    install(two[0], tmp_path / "link")
    assert answers(tmp_path / "link" / "flannel")
    assert (tmp_path / "link").is_symlink()


def test_target_may_be_relative(two: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--no-units", "--from", str(two[0]), "here"]
    subprocess.run([PROGRAM, "install", *words], cwd=tmp_path, check=True, capture_output=True)
    assert answers(tmp_path / "here" / "flannel")


def test_an_older_build_goes_and_the_others_stay(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[1], tmp_path)
    (tmp_path / "loopback").write_text("another plugin")
    assert "removed" in install(two[0], tmp_path)
    assert builds(tmp_path) == builds(two[0])
    assert (tmp_path / "loopback").read_text() == "another plugin"


def test_a_build_in_use_stays_until_the_next_time(two: tuple[Path, Path], used: Path) -> None:
    assert "kept" in install(two[0], used)
    assert len(builds(used)) == 3


def test_a_build_in_use_is_seen_from_another_pid_namespace(
    two: tuple[Path, Path], used: Path
) -> None:
    """As an installation in a container: it sees no process of the node's."""
    words = f"{PROGRAM} install --no-units --from {two[0]} {used}"
    said = in_private(f"exec unshare --fork --pid --mount-proc {words}")
    assert "kept" in said
    assert len(builds(used)) == 3


def test_after_its_last_call_a_build_goes(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[1], tmp_path)
    assert answers(tmp_path / "flannel")
    install(two[0], tmp_path)
    assert builds(tmp_path) == builds(two[0])


def test_the_same_build_again_changes_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[0], tmp_path)
    before = {path: path.lstat().st_ino for path in tmp_path.rglob("*") if path.name != "current"}
    install(two[0], tmp_path)
    assert {path: path.lstat().st_ino for path in before} == before
    assert builds(tmp_path) == builds(two[0])


@pytest.mark.parametrize("damage", ["empty", "missing", "more", "mode"])
def test_the_same_build_again_heals_what_is_damaged(
    two: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    install(two[0], tmp_path)
    codec = tmp_path / BASE / "current" / "encodings" / "__init__.pyc"
    if damage == "empty":
        codec.write_bytes(b"")
    elif damage == "missing":
        codec.unlink()
    elif damage == "more":
        codec.with_name("evil.pyc").touch()
    else:
        codec.chmod(0o600)
    install(two[0], tmp_path)
    whole = tree(two[0] / BASE / "current" / "encodings")
    healed = tree(tmp_path / BASE / "current" / "encodings")
    assert healed == {path.replace(str(two[0]), str(tmp_path)): one for path, one in whole.items()}
    assert len(builds(tmp_path)) == 2


@pytest.mark.parametrize("umask", ["0", "077"])
def test_everybody_may_run_it_and_only_the_owner_change_it(
    two: tuple[Path, Path], tmp_path: Path, umask: str
) -> None:
    """Whatever the umask is, here and where it was built."""
    source = tmp_path / "built"
    shutil.copytree(two[0], source, symlinks=True)
    for path in source.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700 if umask == "077" else 0o777)
    for _ in range(2):
        words = f"umask {umask}; exec {PROGRAM} install --no-units --from {source} {tmp_path}/bin"
        subprocess.run(["sh", "-c", words], check=True, capture_output=True)
        assert len(builds(tmp_path / "bin")) == 2
    for path in [tmp_path / "bin", *(tmp_path / "bin").rglob("*")]:
        mode = path.lstat().st_mode & 0o777
        if not path.is_symlink():
            assert mode & 0o022 == 0, path
            assert mode & 0o044 == 0o044, path
            assert not path.is_dir() or mode == 0o755


# ------------------------------------------------------------------------------ under live traffic


class Callers:
    """Calls one after the other by several threads; what failed."""

    def __init__(self, folder: Path) -> None:
        self.failures: list[str] = []
        self.made = 0
        self._folder = folder
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        program = self._folder / PROGRAMS[number % 2]
        environ = ADD if number == 2 else {"CNI_COMMAND": "VERSION"}
        while not self._done.is_set():
            done = subprocess.run(
                [program], input=b"{}", env=environ, capture_output=True, check=False
            )
            wanted = b'"code": 7' if environ is ADD else b"supportedVersions"
            self.made += 1
            if wanted not in done.stdout:
                self.failures.append(f"{program.name} {done}")

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_no_call_fails_while_builds_are_exchanged(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Real upgrades, one after the other, back and forth, and from mode to mode."""
    install(two[0], tmp_path)
    callers = Callers(tmp_path)
    upgrades = 0
    while callers.made < CALLS and not callers.failures:
        upgrades += 1
        install(two[upgrades % 2], tmp_path, *(["--resident"] if upgrades % 3 else []))
    callers.stop()
    assert callers.failures == []
    assert upgrades > 1
    install(two[0], tmp_path)
    assert builds(tmp_path) == builds(two[0])


def test_a_killed_installation_breaks_nothing_and_leaves_nothing(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    """SIGKILL at moments of an upgrade; after each the programs answer."""
    install(two[0], tmp_path)
    begun = time.monotonic()
    install(two[1], tmp_path)
    whole = time.monotonic() - begun
    for number in range(KILLS):
        words = ["--no-units", "--from", str(two[number % 2]), str(tmp_path)]
        with subprocess.Popen(
            [PROGRAM, "install", *words], stdout=subprocess.DEVNULL
        ) as installing:
            time.sleep(random.uniform(0.3, 1) * whole)
            installing.send_signal(signal.SIGKILL)
        assert all(answers(tmp_path / program) for program in PROGRAMS)
    install(two[0], tmp_path)
    assert tree(tmp_path).keys() == {
        path.replace(str(two[0]), str(tmp_path)) for path in tree(two[0])
    }


def test_a_second_installation_waits(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[0], tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    words = ["--no-units", "--from", str(two[1]), str(tmp_path)]
    with subprocess.Popen([PROGRAM, "install", *words], stdout=subprocess.PIPE) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=2)
        assert builds(tmp_path) == builds(two[0])
        os.close(fd)
        assert waiting.wait(timeout=60) == 0
    assert builds(tmp_path) == builds(two[1])


# ------------------------------------------------------------------------------- what is not ours


def test_what_was_there_comes_back(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Go's plugin, and a link to another one; with their modes, owners and times."""
    (tmp_path / "flannel").write_bytes(GO)
    (tmp_path / "flannel").chmod(0o750)
    os.utime(tmp_path / "flannel", (1e9, 1e9))
    (tmp_path / "host-local").symlink_to("/usr/lib/cni/host-local")
    (tmp_path / "bridge").write_bytes(GO)
    before = tree(tmp_path)
    said = install(two[1], tmp_path)
    assert f"{tmp_path}/flannel was another's: kept as" in said
    assert "was another's" not in install(two[0], tmp_path), "ours now"
    assert all(answers(tmp_path / program) for program in PROGRAMS)
    done = run("--uninstall", "--no-units", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(tmp_path) == before
    assert (tmp_path / "flannel").stat().st_mtime == 1e9


def test_the_latest_of_what_was_there_comes_back(two: tuple[Path, Path], tmp_path: Path) -> None:
    """kube-flannel's init container has put its own there in between."""
    (tmp_path / "flannel").write_bytes(GO)
    install(two[0], tmp_path)
    newer = tmp_path / "new"
    newer.write_bytes(GO + b" 2")
    newer.rename(tmp_path / "flannel")
    install(two[1], tmp_path)
    assert run("--uninstall", "--no-units", tmp_path).returncode == 0
    assert (tmp_path / "flannel").read_bytes() == GO + b" 2"
    assert os.listdir(tmp_path) == ["flannel"]


def test_what_is_anothers_by_now_stays(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[0], tmp_path)
    (tmp_path / "flannel").unlink()
    (tmp_path / "flannel").write_bytes(GO)
    assert f"left {tmp_path}/flannel" in run("--uninstall", "--no-units", tmp_path).stdout
    assert tree(tmp_path) == {str(tmp_path / "flannel"): (0o100644, GO)}


def test_nothing_is_left_where_nothing_was(two: tuple[Path, Path], tmp_path: Path) -> None:
    install(two[0], tmp_path)
    assert run("--uninstall", "--no-units", tmp_path).returncode == 0
    assert os.listdir(tmp_path) == []
    again = run("--uninstall", "--no-units", tmp_path)
    assert (again.returncode, "nothing is installed" in again.stdout) == (0, True)


def test_folders_that_were_made_go_with_it(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Those above that were there stay, and so does one with anything else in it."""
    target = tmp_path / "opt" / "cni" / "bin"
    for others in (False, True):
        install(two[0], target)
        install(two[1], target)
        if others:
            (tmp_path / "opt" / "other").touch()
        assert run("--uninstall", "--no-units", target).returncode == 0
        assert os.listdir(tmp_path) == (["opt"] if others else [])
    assert os.listdir(tmp_path / "opt") == ["other"]


def test_an_installation_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    for words in ([], ["--daemon"]):
        done = run(*words, "--no-units", "--from", tmp_path, tmp_path / "opt" / "cni")
        assert (done.returncode, os.listdir(tmp_path)) == (1, [])


def test_what_earlier_builds_left_is_known(two: tuple[Path, Path], tmp_path: Path) -> None:
    """It is no plugin of another's, and it goes when it is sure that nobody uses it."""
    old = tmp_path / ".cni-flannel-0.1.0+00000000"
    old.mkdir()
    (old / "MARKER").write_text("cni-flannel 0.1.0\n")
    (tmp_path / "flannel").write_bytes(b"\x7fELF .cni-flannel-0.1.0+00000000")
    said = install(two[0], tmp_path)
    assert "another's" not in said
    assert f"{'kept' if old.exists() else 'removed'} {old}" in said


# ------------------------------------------------------------------------- what cannot be installed


WRONG: dict[str, tuple[list[str], str]] = {
    "an empty DIR": ([""], "DIR is empty"),
    "an empty --from": (["--from", "", "{}"], "--from is empty"),
    "two DIRs": (["{}", "{}/x"], "unrecognized arguments"),
    "an unknown option": (["--residnet", "{}"], "unrecognized arguments"),
    "a shortened option": (["--res", "{}"], "unrecognized arguments"),
    "a file": (["{}/file"], "no folder"),
    "the root": (["/"], "no folder"),
    "resident and daemon": (["--resident", "--daemon", "{}"], "--resident is for the plugins"),
    "uninstall and resident": (["--resident", "--uninstall", "{}"], "--uninstall takes"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_wrong_words_change_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    done = run("--no-units", *(word.replace("{}", str(tmp_path)) for word in words))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert tree(tmp_path) == before


def test_help_does_nothing_else(tmp_path: Path) -> None:
    done = run("--help", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--uninstall" in done.stdout
    assert not (tmp_path / "new").exists()


def test_check_changes_nothing(tmp_path: Path) -> None:
    done = run("--check", "--no-units", tmp_path / "new")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "new").exists()


@needs_root
@pytest.mark.parametrize(
    ("options", "said"),
    [("noexec", "cannot run there"), ("ro", "Read-only"), ("size=4m", "No space left")],
)
def test_a_place_that_does_not_do(two: tuple[Path, Path], options: str, said: str) -> None:
    """One line says why; what was there is as before."""
    script = f"""
        mount -t tmpfs none /mnt && cp "$3"/flannel /mnt/flannel && mount -o remount,{options} /mnt
        "$1" install --no-units --from "$2" /mnt && exit 9
        ls -A /mnt
        cmp "$3"/flannel /mnt/flannel
    """
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", PROGRAM, *two],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "flannel\n")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_build_of_another_machine_replaces_nothing(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    install(two[0], tmp_path / "bin")
    before = tree(tmp_path / "bin")
    shutil.copytree(two[1], tmp_path / "arm", symlinks=True)
    loader = tmp_path / "arm" / BASE / "current" / "ld.so"
    binary = bytearray(loader.read_bytes())
    binary[18] = 0xB7  # e_machine: AArch64
    loader.write_bytes(binary)
    done = run("--no-units", "--from", tmp_path / "arm", tmp_path / "bin")
    assert done.returncode == 1
    assert "cannot run there" in done.stderr
    assert tree(tmp_path / "bin") == before


def test_a_folder_in_the_place_of_a_plugin(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "host-local").mkdir()
    done = run("--no-units", "--from", two[0], tmp_path)
    assert (done.returncode, os.listdir(tmp_path)) == (1, ["host-local"])
    assert "is a folder" in done.stderr


def test_what_is_no_build(tmp_path: Path) -> None:
    done = run("--no-units", "--from", tmp_path, tmp_path / "bin")
    assert done.returncode == 1
    assert "is no build" in done.stderr


def test_destdir_is_a_root_that_is_made_elsewhere(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing outside of it is touched; what is in it runs at its place."""
    done = run("--resident", "--from", two[0], "/opt/x/bin", DESTDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    unit = (tmp_path / "etc/systemd/system/cni-flannel.service").read_text()
    assert "ExecStart=/opt/x/bin/flannel serve\n" in unit
    assert str(tmp_path) not in unit
    assert answers(tmp_path / "opt/x/bin/flannel")
    done = run("--daemon", DESTDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    unit = (tmp_path / "etc/systemd/system/flanneld.service").read_text()
    assert "ExecStart=/usr/local/lib/flanneld/flanneld\n" in unit
    assert run("--uninstall", "/opt/x/bin", DESTDIR=str(tmp_path)).returncode == 0
    assert run("--uninstall", "--daemon", DESTDIR=str(tmp_path)).returncode == 0
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []

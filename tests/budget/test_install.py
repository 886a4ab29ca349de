"""`install` next to a working node.

Calls never fail, older contents go when nobody uses them, and others' files stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.budget.mounts import in_private, without_systemd

pytestmark = [pytest.mark.frozen, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "dist" / "cni-flannel"
INSTALL = ROOT / "packaging" / "install.sh"
VERSION = {"CNI_COMMAND": "VERSION", "PATH": "/usr/bin:/bin"}


def install(source: Path, target: Path) -> str:
    done = subprocess.run([INSTALL, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(program: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program], input=b"{}", env=VERSION, capture_output=True, check=False)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".cni-flannel-*"))


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two builds: the real one, and a copy under a name of its own as another build would have."""
    if not (BUILT / "flannel").exists():
        pytest.skip(f"{BUILT} is not built: run ./build.sh")
    other = tmp_path_factory.mktemp("other") / "cni-flannel"
    shutil.copytree(BUILT, other)
    (name,) = contents(other)
    renamed = name[:-8] + "0" * 8
    (other / name).rename(other / renamed)
    for program in ("flannel", "host-local"):
        binary = (other / program).read_bytes()
        assert name.encode() in binary
        (other / program).write_bytes(binary.replace(name.encode(), renamed.encode()))
    return BUILT, other


def test_installed_programs_answer(builds: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "opt" / "cni" / "bin"
    install(builds[0], target)
    assert sorted(path.name for path in target.iterdir()) == [
        *contents(builds[0]),
        "flannel",
        "host-local",
    ]
    for program in ("flannel", "host-local"):
        assert b"supportedVersions" in answer(target / program).stdout


def test_target_may_be_a_link(builds: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    install(builds[0], tmp_path / "link")
    assert answer(tmp_path / "link" / "flannel").returncode == 0
    assert (tmp_path / "link").is_symlink()


def test_older_contents_go_and_foreign_ones_stay(builds: tuple[Path, Path], tmp_path: Path) -> None:
    install(builds[1], tmp_path)
    foreign = tmp_path / ".cni-flannel-of-somebody-else"
    foreign.mkdir()
    (foreign / "file").touch()
    (tmp_path / "loopback").write_text("another plugin")
    install(builds[0], tmp_path)
    assert contents(tmp_path) == sorted([*contents(builds[0]), foreign.name])
    assert (tmp_path / "loopback").read_text() == "another plugin"


def test_contents_in_use_stay_until_the_next_time(
    builds: tuple[Path, Path], tmp_path: Path
) -> None:
    install(builds[1], tmp_path)
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(tmp_path),
    }
    waiting = subprocess.Popen(
        [tmp_path / "flannel"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    try:
        wait_until_maps(waiting.pid, "libpython")
        assert "kept" in install(builds[0], tmp_path)
        assert len(contents(tmp_path)) == 2
        out, _ = waiting.communicate(b'{"cut off', timeout=30)
        assert b'"code": 6' in out
    finally:
        waiting.kill()
        waiting.wait()
    assert "removed" in install(builds[0], tmp_path)
    assert contents(tmp_path) == contents(builds[0])


def wait_until_maps(pid: int, library: str) -> None:
    maps = Path(f"/proc/{pid}/maps")
    while library not in maps.read_text():
        os.sched_yield()


def test_same_build_again_repairs_what_is_damaged(
    builds: tuple[Path, Path], tmp_path: Path
) -> None:
    install(builds[0], tmp_path)
    (name,) = contents(tmp_path)
    codec = tmp_path / name / "encodings" / "__init__.pyc"
    whole = codec.read_bytes()
    untouched = (tmp_path / name / "MARKER").stat().st_ino
    codec.write_bytes(b"")
    (tmp_path / name / "json" / "decoder.pyc").unlink()
    install(builds[0], tmp_path)
    assert codec.read_bytes() == whole
    assert (tmp_path / name / "json" / "decoder.pyc").exists()
    assert (tmp_path / name / "MARKER").stat().st_ino == untouched


def test_no_call_fails_while_builds_are_exchanged(
    builds: tuple[Path, Path], tmp_path: Path
) -> None:
    install(builds[0], tmp_path)
    done = threading.Event()
    failures: list[subprocess.CompletedProcess[bytes]] = []
    calls = 0

    def keep_calling() -> None:
        nonlocal calls
        while not done.is_set():
            outcome = answer(tmp_path / "host-local")
            calls += 1
            if outcome.returncode != 0 or b"supportedVersions" not in outcome.stdout:
                failures.append(outcome)

    callers = [threading.Thread(target=keep_calling) for _ in range(2)]
    for caller in callers:
        caller.start()
    for number in range(8):
        install(builds[number % 2], tmp_path)
    done.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert calls > 12


# ----------------------------------------------------------------------------------- resident mode


FAKE_SYSTEMCTL = """#!/bin/sh
echo "$@" >>/run/asked
"""


@pytest.fixture
def built() -> Path:
    if not (BUILT / "launcher" / "flannel").exists():
        pytest.skip(f"no launchers in {BUILT}: not built, or without a C compiler")
    return BUILT


def install_resident(source: Path, target: Path) -> str:
    return without_systemd(INSTALL, "--resident", source, target)


def test_launchers_know_where_the_pair_is(built: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "bin", tmp_path / "elsewhere"
    said = install_resident(built, target)
    assert f"{target}/cni-flannel/flannel serve" in said
    assert sorted(path.name for path in target.iterdir()) == [
        "cni-flannel",
        "flannel",
        "host-local",
    ]
    elsewhere.mkdir()
    for program in ("flannel", "host-local"):
        launcher = (target / program).read_bytes()
        assert len(launcher) == (built / "launcher" / program).stat().st_size
        assert f"CNI_FLANNEL_FROZEN={target}/cni-flannel\0".encode() in launcher
        (elsewhere / program).write_bytes(launcher)
        (elsewhere / program).chmod(0o755)
        assert b"supportedVersions" in answer(elsewhere / program).stdout
    pair = target / "cni-flannel"
    assert answer(pair / "flannel").stdout == answer(target / "flannel").stdout
    unit = (pair / "cni-flannel.service").read_text()
    assert f"ExecStart={pair}/flannel serve\n" in unit
    assert "@FOLDER@" not in unit


def test_resident_mode_comes_and_goes_over_the_plain_pair(built: Path, tmp_path: Path) -> None:
    install(built, tmp_path)
    install_resident(built, tmp_path)
    assert contents(tmp_path) == []
    assert contents(tmp_path / "cni-flannel") == contents(built)
    assert "is of resident mode" in install(built, tmp_path)
    assert contents(tmp_path) == contents(built)
    assert (tmp_path / "flannel").read_bytes() == (built / "flannel").read_bytes()


def test_a_path_without_room_is_refused(built: Path, tmp_path: Path) -> None:
    long = tmp_path.joinpath(*["x" * 200] * 5)
    done = subprocess.run(
        [INSTALL, "--resident", built, long], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "room for 1000" in done.stderr


def test_units_are_installed_where_systemd_runs(built: Path, tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/bin
        mount -t tmpfs none /etc/systemd/system
        printf '%s' '{FAKE_SYSTEMCTL}' >/run/bin/systemctl && chmod +x /run/bin/systemctl
        PATH=/run/bin:$PATH "$@" >&2
        systemd-analyze verify /etc/systemd/system/cni-flannel.socket
        systemd-analyze verify /etc/systemd/system/cni-flannel.service
        cat /run/asked && ls /etc/systemd/system
    """
    said = in_private(script, INSTALL, "--resident", built, tmp_path)
    assert said.splitlines() == [
        "daemon-reload",
        "enable cni-flannel.socket",
        "stop cni-flannel.service",
        "restart cni-flannel.socket",
        "cni-flannel.service",
        "cni-flannel.socket",
    ]

"""Real runtimes as clients: containerd with runc, podman with its CNI backend.

And what they leave when the tool itself is killed: no process, no cgroup.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.__main__ import main
from conformance.options import DEFAULT_BIN_DIR
from conformance.real.containerd import PROGRAMS as CONTAINERD
from conformance.real.machine import Machine
from conformance.real.podman import PROGRAMS as PODMAN
from conformance.world import SYSTEM_PATH, WorldError

BIN_DIR = Path(os.environ.get("CNI_FLANNEL_BIN", DEFAULT_BIN_DIR))
SERVE = """
import sys
from pathlib import Path
from conformance.real.machine import Machine
machine = Machine(Path(sys.argv[1]))
machine.popen(["setsid", "unshare", "--mount", "sleep", "1000"])
machine.run(["sh", "-c", f"mkdir /sys/fs/cgroup/{machine.cgroup}/deep"])
machine.run(["sh", "-c", f"echo $$ >/sys/fs/cgroup/{machine.cgroup}/deep/cgroup.procs"])
print(machine.cgroup, machine.world.holder.pid, machine._keeper.pid, flush=True)
sys.stdin.read()
"""

pytestmark = [pytest.mark.kernel, pytest.mark.frozen, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    """Skip where no machine can be made, saying why."""
    if not (BIN_DIR / "flannel").exists():
        pytest.skip(f"{BIN_DIR}/flannel is not built: run ./build.sh")
    if os.geteuid() != 0:
        pytest.skip("containers need root here")
    try:
        Machine(BIN_DIR).close()
    except WorldError as error:
        pytest.skip(str(error))


def need(programs: tuple[str, ...]) -> None:
    for program in programs:
        if shutil.which(program, path=SYSTEM_PATH) is None:
            pytest.skip(f"{program} is not installed")


def figure_of(verb: str, capfd: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Run a verb that must succeed; its counts."""
    status = main([verb, "--bin-dir", str(BIN_DIR), "--json"])
    figure = json.loads(capfd.readouterr().out)
    assert figure["failures"] == []
    assert status == 0
    counts: dict[str, int] = figure["counts"]
    return counts


def test_containerd(capfd: pytest.CaptureFixture[str]) -> None:
    need(CONTAINERD)
    counts = figure_of("containerd", capfd)
    assert counts["kills"] == 2
    assert counts["reboots"] == 1
    assert counts["taken back"] >= 8
    assert counts["leftovers"] == 0


def test_podman(capfd: pytest.CaptureFixture[str]) -> None:
    need(PODMAN)
    assert figure_of("podman", capfd) == {"containers": 3, "pages": 6, "leftovers": 0}


def test_a_killed_tool_leaves_nothing() -> None:
    tool = subprocess.Popen(
        [sys.executable, "-c", SERVE, BIN_DIR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert tool.stdout is not None
    cgroup, *pids = tool.stdout.readline().split()
    inside = Path(f"/proc/{pids[1]}/ns/net").readlink()
    tool.kill()
    tool.communicate()
    end = time.monotonic() + 20
    while living := [pid for pid in pids if Path(f"/proc/{pid}").exists()] + in_namespace(inside):
        assert time.monotonic() < end, living
        time.sleep(0.05)
    assert list(Path("/sys/fs/cgroup").glob(f"**/{cgroup}")) == []


def in_namespace(namespace: Path) -> list[str]:
    """Processes of this machine in a network namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "ns/net").readlink() == namespace:
                found.append(entry.name)
        except OSError:
            continue
    return found

"""What is left of a program in an enclosure: nothing, whoever of it is killed, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.enclosure import CGROUPS
from tests.kernel.attaching import eventually
from tests.kernel.conftest import ROOT
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root

# Everything that tests leave when they are cut short, made over and over: a process that has left
# the session and ignores what it can, namespaces, links, mounts, rules, cgroups, files.
UNTIDY = """
trap '' TERM INT HUP
number=0
while :; do
    number=$((number + 1))
    setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 0.01; done' &
    mkdir /sys/fs/cgroup/$number && echo $! >/sys/fs/cgroup/$number/cgroup.procs
    ip netns add pod$number && ip link add veth$number type veth peer name eth0 netns pod$number
    mktemp >/dev/null
    mkdir -p /run/here && mount -t tmpfs none /run/here && touch /run/here/$number
    nft add table inet table$number
    setsid unshare --net --mount sleep 1000 &
    [ $number -ge 5 ] || continue
    echo untidy
    wait
done
"""


class Enclosed:
    """A program in an enclosure; its processes are known by a mark in their environment."""

    def __init__(
        self, *argv: str, options: tuple[str, ...] = (), trace: list[str] | None = None
    ) -> None:
        self.mark = uuid.uuid4().hex
        self.outside = subprocess.Popen(
            [*(trace or []), sys.executable, "-m", "tests.enclosure", *options, *argv],
            cwd=ROOT,
            env={**os.environ, "MARK": self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """Wait for a line of output."""
        assert self.outside.stdout is not None
        return self.outside.stdout.readline().strip()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; exit status and output."""
        out, err = self.outside.communicate(timeout=60)
        return self.outside.returncode, out, err

    def processes(self) -> list[int]:
        """All of it that run, in whatever session or namespace."""
        mark = f"MARK={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def children(self, pid: int) -> list[int]:
        """Children of one of its processes, the oldest first."""
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def program(self) -> int:
        """The program itself: what init has started last."""
        init = self.children(self.outside.pid)[-1]
        return self.children(init)[-1]

    def is_gone(self) -> None:
        """Wait until no process and no cgroup is left."""
        eventually(lambda: not self.processes(), "its processes end")
        assert list(CGROUPS.glob(f"**/cni-flannel-tests-{self.outside.pid}")) == []


def host() -> dict[str, object]:
    """What a run could leave on this machine."""
    run = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    nft = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return {
        "links": [line.split()[0] for line in run.stdout.splitlines()],
        "tables": nft.stdout,
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "here": Path("/run/here").exists(),
        "pods": [name for name in os.listdir("/run/netns") if name.startswith("pod")]
        if Path("/run/netns").exists()
        else [],
    }


@pytest.fixture
def tidy() -> Iterator[None]:
    """The machine is afterwards as it was."""
    before = host()
    yield
    assert host() == before


@pytest.mark.parametrize("victim", ["program", "init", "outside", "group"])
@pytest.mark.usefixtures("tidy")
def test_whoever_is_killed_nothing_is_left(victim: str) -> None:
    enclosed = Enclosed("sh", "-c", UNTIDY)
    assert enclosed.line() == "untidy"
    assert len(enclosed.processes()) > 10
    outside = enclosed.outside.pid
    if victim == "group":
        os.killpg(outside, signal.SIGKILL)
    elif victim == "outside":
        os.kill(outside, signal.SIGKILL)
    elif victim == "init":
        os.kill(enclosed.children(outside)[-1], signal.SIGKILL)
    else:
        os.kill(enclosed.program(), signal.SIGKILL)
    status, *_ = enclosed.end()
    assert status in {-signal.SIGKILL, 128 + signal.SIGKILL}
    enclosed.is_gone()


@pytest.mark.parametrize("whom", ["outside", "everybody"])
@pytest.mark.parametrize("step", range(1, 50, 2))
@pytest.mark.usefixtures("tidy")
def test_a_kill_at_any_step_leaves_nothing(step: int, whom: str) -> None:
    """strace(1) sends the signal at the n-th system call of those that the enclosure is made of."""
    calls = "unshare,mount,umount2,clone,clone3,fork,vfork,mkdir,prctl,rt_sigtimedwait,wait4"
    trace = ["strace", "-DDD", "-o", "/dev/null", *(["-f"] if whom == "everybody" else [])]
    trace += ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={step}"]
    enclosed = Enclosed("sh", "-c", UNTIDY, trace=trace)
    if enclosed.line() == "untidy":  # fewer steps than that
        os.killpg(enclosed.outside.pid, signal.SIGKILL)
    enclosed.end()
    enclosed.is_gone()


def test_the_program_s_end_is_the_end() -> None:
    for script, status in (("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)):
        enclosed = Enclosed("sh", "-c", f"setsid sleep 1000 & {script}")
        assert enclosed.end()[0] == status
        enclosed.is_gone()
    assert Enclosed("/nowhere").end()[0] == 127


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_program(signum: signal.Signals) -> None:
    name = signum.name.removeprefix("SIG")
    script = f"trap 'echo had {name}; exit 3' {name}; sleep 1000 & echo up; wait"
    # Whatever the tests' own starter ignores.
    enclosed = Enclosed("env", f"--default-signal={name}", "sh", "-c", script)
    assert enclosed.line() == "up"
    os.kill(enclosed.outside.pid, signum)
    assert enclosed.end()[:2] == (3, f"had {name}\n")


def test_what_a_program_finds_inside() -> None:
    script = "ls /run; ip -br link | cut -c1-2; echo $$; mktemp -u; ls -d /sys/fs/cgroup/main"
    _, out, _ = Enclosed("sh", "-c", script).end()
    link, pid, file, cgroup = out.split()
    assert (link, cgroup) == ("lo", "/sys/fs/cgroup/main")
    assert int(pid) < 10
    assert file.startswith("/dev/shm/")  # noqa: S108


def test_busy_loops_run_beside_the_program_and_end_with_it() -> None:
    enclosed = Enclosed("sh", "-c", "echo up; exec sleep 1000", options=("--busy", "3"))
    assert enclosed.line() == "up"
    init = enclosed.children(enclosed.outside.pid)[-1]
    *loops, _ = enclosed.children(init)
    assert len(loops) == 3
    eventually(lambda: all(spent(loop) > 5 for loop in loops), "all of them take time")
    enclosed.outside.kill()
    enclosed.end()
    enclosed.is_gone()


def spent(pid: int) -> int:
    """CPU time of a process, in ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def test_usage() -> None:
    for options in ((), ("--busy",), ("--busy", "many", "true")):
        status, _, err = Enclosed(*options).end()
        assert status == 2
        assert err.startswith("usage:")

"""Namespaces that a process holds, and programs in them.

Everything of a lab lives in one PID namespace: when its first process ends, the kernel kills all
others, in whatever state they and the tests are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.world import SYSTEM_PATH, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0  # on a machine that does other things as well; nothing is judged by it


class LabError(Exception):
    """The lab could not be made, or something that was waited for did not come."""


def until(
    what: str,
    is_so: Callable[[], bool],
    patience_s: float = PATIENCE_S,
    pause_s: float = 0.01,
) -> float:
    """Wait until something is so; the seconds that it took. LabError if it never is."""
    start = time.monotonic()
    while not is_so():
        if time.monotonic() - start > patience_s:
            raise LabError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(pause_s)
    return time.monotonic() - start


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def members(namespace: str) -> list[int]:
    """Find the processes of a namespace, given as its link in /proc reads."""
    kind = namespace.partition(":")[0]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns" / kind) == namespace:
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended
    return found


class Process:
    """A program in a space. nsenter stands before it, as its parent, and repeats how it ended."""

    def __init__(self, nsenter: subprocess.Popen[bytes]) -> None:
        self._nsenter = nsenter
        until("nsenter's child", lambda: bool(_children(nsenter.pid)) or nsenter.poll() is not None)
        self.pid = _children(nsenter.pid)[0]

    @property
    def is_running(self) -> bool:
        return self._nsenter.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself; nsenter follows by itself if it stops."""
        os.kill(self.pid, number)
        if number == signal.SIGCONT:
            self._nsenter.send_signal(number)

    def wait(self) -> int:
        """Wait for the end: the exit status, negative for a signal."""
        return self._nsenter.wait(PATIENCE_S)

    def cpu_seconds(self) -> float:
        """CPU time of the program, and of its children that have ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Peak of the resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Space:
    """Namespaces of a process, which ``pid`` names as seen from here."""

    def __init__(
        self, name: str, argv: Sequence[str], namespaces: Sequence[str] = ("net", "mount", "pid")
    ) -> None:
        """Start the holder, which prints `ready` when it is, and waits for the end of its input.

        ``argv`` may start it through others: it is the last in the line of their children.
        """
        self.name = name
        self._started: list[Process] = []
        self._holder = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,  # a Ctrl-C at the terminal is for the test
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise LabError(f"{name} was not made: {self._holder.communicate()[1].strip()}")
        self.pid = self._holder.pid
        while children := _children(self.pid):
            self.pid = children[0]
        kinds = (f"--{kind}" for kind in namespaces)
        self.nsenter = ("nsenter", "--target", str(self.pid), *kinds, "--")
        self.enter: tuple[str, ...] = self.nsenter  # what stands before a command

    def close(self) -> None:
        """End the holder; what else runs here ends with the lab's PID namespace."""
        self._holder.communicate()
        for process in self._started:
            process.wait()

    @property
    def netns(self) -> Path:
        """Path of the network namespace, for `conformance.state.entered`."""
        return Path(f"/proc/{self.pid}/ns/net")

    def path(self, path: str) -> Path:
        """Translate a path of the space to one that this process can open."""
        return Path(f"/proc/{self.pid}/root{path}")

    def run(
        self,
        *argv: str,
        text: str = "",
        env: dict[str, str] | None = None,
        check: bool = True,
    ) -> Outcome:
        """Run a program; with ``check``, one that fails is an AssertionError."""
        done = subprocess.run(
            [*self.enter, *argv],
            input=text,
            env={"PATH": SYSTEM_PATH, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        assert not check or outcome.status == 0, (self.name, argv, outcome)
        return outcome

    def sh(self, script: str) -> str:
        """Run a shell script; what it prints."""
        return self.run("sh", "-ec", script).stdout

    def ip(self, *argv: str) -> list[dict[str, Any]]:
        """Run `ip -j -d ...`; what it prints, without empty entries."""
        return [
            entry for entry in json.loads(self.run("ip", "-j", "-d", *argv).stdout or "[]") if entry
        ]

    def start(self, *argv: str, log: str, env: dict[str, str] | None = None) -> Process:
        """Start a program; what it prints is appended to a file of the space."""
        with self.path(log).open("ab") as file:
            started = subprocess.Popen(
                [*self.enter, *argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={"PATH": SYSTEM_PATH, **(env or {})},
            )
        self._started.append(Process(started))
        return self._started[-1]

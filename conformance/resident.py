"""The resident process behind launchers: its life in a world, and the calls that it must serve.

BIN_DIR/resident is the name of the plugins in BIN_DIR with such a process in each world, so that
the rest of the tool knows of a folder only. The process runs at its usual socket, and says on
stderr what it serves. From its documentation (docs/resident.md) it is known which calls a launcher
hands over; each of them has to be found there. So a launcher that does the work itself, which no
result can tell, is a failure.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from conformance.world import World

MODE = "resident"
FOLDER = "cni-flannel"  # below /run, of the socket
SOCKET = f"/run/{FOLDER}/cni.sock"
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
LARGEST_STDIN = 4 << 20
LARGEST_ENVIRONMENT = 1 << 20
_START_S = 30.0
_NO = subprocess.DEVNULL
_GONE = {errno.ENOENT, errno.ENOTDIR}

# What a resident process may say of a launcher that was killed, or gave up.
_ORDINARY = ("serving ", "Refused: ", "BrokenPipeError: ", "ConnectionResetError: ")


def folder_of(plugins: Path) -> tuple[Path, bool]:
    """Return the folder that a name stands for, and whether with a resident process."""
    return (plugins.parent, True) if plugins.name == MODE else (plugins, False)


class Resident:
    """`flannel serve` in a world; `start` and `stop` as often as wanted."""

    def __init__(self, world: World, pair: Path) -> None:
        self.world = world
        self.enter: Sequence[str] = world.enter
        self.program = str(pair / "flannel")
        self.expected: list[str] = []  # verbs; threads append to it
        self._told = 0  # lines of the log that `account` has seen
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the object
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves; AssertionError if it does not."""
        command = [*self.enter, self.program, "serve", "--log-calls"]
        begun = self.log().count("serving ")
        self.process = subprocess.Popen(command, stdin=_NO, stdout=_NO, stderr=self._log, env={})
        self.world.started.append(self.process)
        deadline = time.monotonic() + _START_S
        while self.log().count("serving ") == begun:
            assert self.process.poll() is None, f"{command}: {self.log()[-500:]}"
            assert time.monotonic() < deadline, f"{command} does not serve: {self.log()[-500:]}"
            time.sleep(0.005)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; after SIGKILL and SIGTERM wait for the end."""
        self.process.send_signal(number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            self.process.wait()

    def restart(self) -> None:
        """Kill it as a machine's trouble does, and start it anew as its supervisor does."""
        self.kill()
        self.start()

    def move(self, enter: Sequence[str], program: str) -> None:
        """Go on as another program, in the namespaces that the command `enter` leads to."""
        self.kill()
        self.enter, self.program = enter, program
        self.start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def log(self) -> str:
        """Everything it has said."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="backslashreplace")

    def close(self) -> None:
        """Forget the log; the process ends with the world."""
        self._log.close()

    # ----------------------------------------------------------------------------- who has served

    def expect(self, environ: dict[str, str], stdin: bytes) -> None:
        """Note a call that a launcher is about to make, if it has to be served."""
        if self._must_serve(environ, stdin):
            self.expected.append(environ["CNI_COMMAND"])

    def forget(self) -> None:
        """Expect nothing of the calls up to now: it was not there, or somebody disturbed them."""
        self.expected.clear()
        self._told = self.log().count("\n")

    def account(self) -> tuple[int, list[str]]:
        """Calls served since the last time, and what is wrong: some that were not, or its words."""
        lines = self.log().splitlines()[self._told :]
        self._told += len(lines)
        served = Counter(verb_of(line) for line in lines if line.startswith("served "))
        problems = [
            f"{count} of the calls of {verb} were not served by the resident process"
            for verb, count in (Counter(self.expected) - served).items()
        ]
        self.expected.clear()
        problems += [
            f"the resident process says: {line[:300]}"
            for line in lines
            if not line.startswith(("served ", *_ORDINARY))
        ]
        if not self.is_alive:
            problems.append(f"the resident process has ended: {self.process.returncode}")
        return served.total(), problems

    def _must_serve(self, environ: dict[str, str], stdin: bytes) -> bool:
        """Whether the documentation has a launcher hand this call over."""
        size = sum(len(os.fsencode(f"{key}={text}")) + 1 for key, text in environ.items())
        if environ.get("CNI_COMMAND") not in VERBS or len(stdin) > LARGEST_STDIN:
            return False
        return size < LARGEST_ENVIRONMENT - 64 and self._can_open(environ)

    def _can_open(self, environ: dict[str, str]) -> bool:
        """Whether CNI_NETNS can be opened, or at DEL is gone."""
        netns = environ.get("CNI_NETNS", "")
        try:
            found = os.open(self.world.path(f"/{netns}"), os.O_PATH)
        except OSError as error:
            return environ["CNI_COMMAND"] == "DEL" and error.errno in _GONE
        os.close(found)
        return True


def verb_of(line: str) -> str:
    """Return the verb of a line about a call that was served."""
    return line.split()[2].strip("'")

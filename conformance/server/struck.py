"""A system call of a running process as the place where it is struck: strace, attached and let go.

strace counts the calls of each thread by itself, from the moment it is attached. What a call of a
plugin makes one of the threads do is the same every time, so a place that was recorded is found
again; a thread that only waits does not get there.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from conformance.stress.injection import places

if TYPE_CHECKING:
    from conformance.resident import Resident
    from conformance.stress.injection import Place

_TRACE = "/run/trace"
_PATIENCE_S = 30.0
_LETTING_GO_S = 2.0
_NOTHING = subprocess.DEVNULL


class Struck:
    """strace on a resident process, as a context manager; what it is told decides what it does."""

    def __init__(self, resident: Resident, *options: str) -> None:
        self.resident = resident
        self.options = options

    def __enter__(self) -> Self:
        pid = self.resident.process.pid
        command = ["strace", "-f", "-qq", "-e", "signal=none", *self.options, "-p", str(pid)]
        self.strace = self.resident.world.popen(
            command, stdin=_NOTHING, stdout=_NOTHING, stderr=_NOTHING
        )
        deadline = time.monotonic() + _PATIENCE_S
        while not _is_traced(pid):
            if not self.resident.is_alive:
                break  # a thread that waits has been struck as strace interrupted it
            assert self.strace.poll() is None, f"{command}: ended with {self.strace.returncode}"
            assert time.monotonic() < deadline, f"{command}: not attached"
            time.sleep(0.002)
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the process, dead or alive.

        strace 6.1 may wait for ever for a thread of a killed process that it has stopped itself.
        When it ends in whatever way, the kernel lets the thread go.
        """
        self.strace.send_signal(signal.SIGTERM)
        try:
            self.strace.wait(_LETTING_GO_S)
        except subprocess.TimeoutExpired:
            self.strace.kill()
            self.strace.wait()


def recording(resident: Resident) -> Struck:
    """Record what the process calls: see `recorded`."""
    return Struck(resident, "-s", "0", "-o", _TRACE)


def recorded(resident: Resident) -> list[Place]:
    """Return the places of a recording that is complete."""
    file = resident.world.path(_TRACE)
    found = places(file.read_text())
    file.unlink()
    return [place for place in found if place.name != "restart_syscall"]


def striking(resident: Resident, place: Place, effect: str) -> Struck:
    """Strike the first thread that gets to a place; `effect` is `signal=KILL`, say."""
    what = f"inject={place.name}:{effect}:when={place.number}"
    return Struck(resident, "-o", "/dev/null", "-e", f"trace={place.name}", "-e", what)


def _is_traced(pid: int) -> bool:
    """Whether every thread is."""
    try:
        texts = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")]
    except OSError:
        return False  # a thread has ended while we looked
    return all("TracerPid:\t0\n" not in text for text in texts)

"""Start a plugin as a runtime does and measure it, adding as little as possible of our own.

posix_spawn, with files in memory as stdin and stdout: no pipe to serve, no thread, no Python
between fork and exec. wait4 gives the processor time of the process and of all it waited for.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import NamedTuple

# linux/ptrace.h
PTRACE_CONT = 7
PTRACE_SEIZE = 0x4206
PTRACE_O_TRACEEXIT = 0x40
PTRACE_EVENT_EXIT = 6


class Measure(NamedTuple):
    """Wall clock and processor time of one call, milliseconds."""

    wall_ms: float
    cpu_ms: float


class Call:
    """One prepared call of a plugin; `run` as often as wanted."""

    def __init__(self, program: str, environ: dict[str, str], stdin: bytes) -> None:
        self.program = program
        self.environ = environ
        self.stdin = stdin
        self.stdout = -1

    def start(self, stdin: int | None = None) -> int:
        """Spawn the plugin, its stdin a file in memory unless one is given; its process ID."""
        source = stdin
        if source is None:
            source = os.memfd_create("stdin")
            os.write(source, self.stdin)
            os.lseek(source, 0, os.SEEK_SET)
        self.stdout = os.memfd_create("stdout")
        redirections = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, self.stdout, 1)]
        pid = os.posix_spawn(self.program, [self.program], self.environ, file_actions=redirections)
        if stdin is None:
            os.close(source)
        return pid

    def check(self, status: int) -> None:
        """Stop the benchmark when a call failed: its time would mean nothing."""
        if status != 0:
            text = os.pread(self.stdout, 1 << 16, 0).decode(errors="replace")
            command = self.environ["CNI_COMMAND"]
            sys.exit(
                f"{self.program} {command}: status {os.waitstatus_to_exitcode(status)}\n{text}"
            )
        os.close(self.stdout)

    def run(self) -> Measure:
        """Run to the end."""
        start = time.perf_counter()
        pid = self.start()
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - start
        self.check(status)
        return Measure(wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000)

    @staticmethod
    def run_all(calls: list[Call]) -> float:
        """Run calls all at once; milliseconds until the last has ended."""
        start = time.perf_counter()
        running = {call.start(): call for call in calls}
        ended: dict[int, int] = {}
        while len(ended) < len(running):
            pid, status = os.wait()
            ended[pid] = status
        wall = time.perf_counter() - start
        for pid, status in ended.items():
            running[pid].check(status)
        return wall * 1000


def peak_memory(call: Call) -> float:
    """Peak resident memory of a call, MiB.

    ru_maxrss will not do: a spawned process inherits the peak of the one that spawned it. So the
    process is stopped on its way out (it waits for stdin until we are ready) and asked for the peak
    of its own memory.
    """
    source, sink = os.pipe()
    os.set_inheritable(sink, False)
    pid = call.start(stdin=source)
    os.close(source)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, pid, None, PTRACE_O_TRACEEXIT) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.write(sink, call.stdin)
    os.close(sink)
    peak = 0.0
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            call.check(status)
            return peak
        if status >> 16 == PTRACE_EVENT_EXIT:
            peak = high_water_mark(pid)
        deliver = 0 if status >> 16 else os.WSTOPSIG(status)
        libc.ptrace(PTRACE_CONT, pid, None, deliver)


def high_water_mark(pid: int) -> float:
    """VmHWM of a process, MiB."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0

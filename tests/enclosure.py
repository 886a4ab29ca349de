"""Runs a program so that nothing of it is left, however it ends.

The program has process, mount, network, IPC and cgroup namespaces of its own. Their init waits for
the program and then ends; it is killed when the process outside is. With an init the kernel ends
every process of its namespace, also one that has left the session, and with the last of them go
links, rules, mounts and temporary files. Cgroups have no such end: a keeper, in a session of its
own, removes them when everybody else is gone.

TMPDIR is a tmpfs of the enclosure. `--busy N` runs N loops beside the program, which end with it.

Without the right to make namespaces the program runs as it is, and a line says so.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests import cgroups
from tests.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    die_with,
    make_mounts_private,
    mount,
    unmount,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = "usage: python -m tests.enclosure [--busy N] PROGRAM [ARG...]"
CGROUPS = Path("/sys/fs/cgroup")
TEMPORARY = "/dev/shm"  # noqa: S108 - every Linux has it, and a mount of ours covers it
MARK = "CNI_FLANNEL_ENCLOSURE"
TENDED = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
PATIENCE_S = 10.0
WEIGHT = 16  # what a run has, beside another program's process


def run(argv: list[str], busy: int = 0) -> int:
    """Run a program in an enclosure; its exit status, or 128 and the signal that has ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TENDED)
    outside = os.getpid()

    def inside() -> None:
        _become(argv)

    def init() -> None:
        die_with(outside)
        _furnish()
        for _ in range(busy):
            _start(_loop)
        os._exit(_tend(_start(inside)))

    try:
        _leave()
    except OSError as error:
        print(f"not enclosed: a killed run may leave something behind ({error})", file=sys.stderr)
        return _tend(_start(inside))
    return _tend(_start(init))


def _leave() -> None:
    """Make the namespaces. This process keeps its process namespace; its children are in theirs."""
    unshare(CLONE_NEWNS)
    make_mounts_private()
    _own_cgroup()
    unshare(CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID)


def _own_cgroup() -> None:
    """Make a cgroup the root of a namespace, start its keeper, and move below it.

    In every hierarchy. Below: a cgroup that has processes cannot hand controllers to others.
    """
    one = (CGROUPS / "cgroup.controllers").exists()
    tops = [
        hierarchy / f"cni-flannel-tests-{os.getpid()}"
        for hierarchy in ([CGROUPS] if one else cgroups.mount_all())
    ]
    _start_keeper(tops)
    for top in tops:
        cgroups.make(top, WEIGHT)
        (top / "cgroup.procs").write_text(str(os.getpid()))
    unshare(CLONE_NEWCGROUP)
    for top in tops:
        cgroups.make(top / "main")
        (top / "main" / "cgroup.procs").write_text(str(os.getpid()))


def _start_keeper(tops: list[Path]) -> None:
    """Start what removes the cgroups when this process and init are gone, with what they hold."""
    ours, theirs = socket.socketpair()

    def keep() -> None:
        ours.close()
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        theirs.send(b"1")
        theirs.recv(1)
        for top in tops:
            _remove(top)

    _start(keep)
    theirs.close()
    ours.recv(1)
    ours.detach()  # it stays open for life


def _remove(top: Path) -> None:
    """Remove a cgroup and those below it, when the processes in them have ended."""
    end = time.monotonic() + PATIENCE_S
    while top.exists() and time.monotonic() < end:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # a process in it has not yet ended
        time.sleep(0.01)


def _furnish() -> None:
    """What programs expect of a machine, inside the new namespaces."""
    unshare(CLONE_NEWNS)  # the keeper's mounts stay as they are
    mount("proc", "/proc")
    unmount(str(CGROUPS))  # there all of the machine's were seen
    mount("cgroup2", str(CGROUPS))
    outer = os.environ.get(MARK)  # another enclosure: its files stay in sight
    temporary = tempfile.mkdtemp(dir=outer) if outer else TEMPORARY
    mount("tmpfs", temporary, "mode=1777")
    mount("tmpfs", "/run", "mode=755")
    os.environ["TMPDIR"] = os.environ[MARK] = temporary
    os.spawnlp(os.P_WAIT, "ip", "ip", "link", "set", "lo", "up")


def _become(argv: list[str]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TENDED)
    os.execvp(argv[0], argv)


def _loop() -> None:
    while True:
        pass


def _start(body: Callable[[], None]) -> int:
    """Run the body in a child; its process ID."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run here
            print(f"tests.enclosure: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)
    return pid


def _tend(child: int) -> int:
    """Wait for a child and give its exit status; reap others, and pass on what is sent to us.

    What a terminal sends, the child has from there.
    """
    while True:
        received = signal.sigwaitinfo(TENDED)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code <= 0:  # SI_USER and its like: a process has sent it
                os.kill(child, received.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break


def main(argv: list[str]) -> int:
    """Parse the command line and run."""
    busy = 0
    if argv[:1] == ["--busy"]:
        if len(argv) < 2 or not argv[1].isdecimal():
            print(f"{USAGE}: --busy takes a number", file=sys.stderr)
            return 2
        busy, argv = int(argv[1]), argv[2:]
    if not argv:
        print(USAGE, file=sys.stderr)
        return 2
    return run(argv, busy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

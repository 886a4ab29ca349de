"""The process that holds a world, and what can be told of it from outside.

Knows the shell that keeps the namespaces, and how to find the processes in them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 5.0

# Runs as the holder, inside the new namespaces. /etc/cni may be missing on the machine and must not
# be made there: then it lies in an overlay. `read` returns at end of input. The bin folder may lie
# below a directory that is covered: it is held open by fd 3 and bound to a place inside.
HOLDER = """
set -e
mount -t tmpfs -o mode=755 world /run
mount -t tmpfs -o mode=755 world /var/lib
mkdir -p /run/netns /run/flannel /var/lib/cni
if [ -d /etc/cni ]; then
    mount -t tmpfs world /etc/cni
else
    mkdir -p /run/.etc/upper /run/.etc/work
    layers=lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work
    mount -t overlay -o $layers world /etc 2>/dev/null && mkdir /etc/cni || true
fi
mount -t sysfs -o ro world /sys 2>/dev/null || true
ip link set lo up
echo ready
read -r _ || true
mine=$(readlink /proc/self/ns/mnt)
for round in 1 2 3 4 5 6 7 8 9; do
    found=
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        [ $pid != $$ ] && [ "$(readlink $entry/ns/mnt 2>/dev/null)" = "$mine" ] &&
            kill -KILL $pid 2>/dev/null && found=yes || true
    done
    [ "$found" ] || break
done
"""


def processes_in(holder: int) -> Iterator[int]:
    """Other processes in the holder's mount namespace."""
    try:
        wanted = os.readlink(f"/proc/{holder}/ns/mnt")
    except OSError:
        return
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != holder:
            try:
                if os.readlink(f"/proc/{entry}/ns/mnt") == wanted:
                    yield int(entry)
            except OSError:
                continue  # it ended, or belongs to somebody else


def commands_in(holder: int, *, without: int) -> list[str]:
    """Command lines of the processes in a world, one of them left out; sorted."""
    found = []
    for pid in processes_in(holder):
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if text and pid != without:  # without any text, it is ending or has ended
            found.append(text.replace(b"\0", b" ").decode(errors="backslashreplace").strip())
    return sorted(found)


def end_processes_in(holder: int) -> None:
    """Kill them until there are none: one that was forking meanwhile has left a child."""
    end = time.monotonic() + _PATIENCE_S
    while living := list(processes_in(holder)):
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            return  # they hang in the kernel, and end when it lets them
        time.sleep(0.005)


def is_netns(path: Path) -> bool:
    """Whether a path is a network namespace: NSFS files are empty and on a device of their own."""
    try:
        return path.is_file() and path.stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def is_pair(flannel: Path) -> bool:
    """Whether a program that is called `bridge` answers as a bridge: it says so when asked."""
    done = subprocess.run(
        ["bridge"], executable=flannel, env={}, capture_output=True, text=True, check=False
    )
    return "bridge" in done.stderr.partition("\n")[0].lower()

"""strace as a tool that hurts: what a program calls, and how to strike it at one of its calls.

A place to strike is a system call's name and number: the third `openat`, the first `setns`. (strace
counts each name by itself and each process by itself, strace(1) "when=".) The places of a program
are those of all its processes, in the order in which one of them first gets there, so that every
K-th place is a fair sample. A launcher becomes the frozen plugin in the same process: the count
goes on. Injection strikes at the entry: the call does not happen.

With `follow` (strace's -f) children are struck too, each at its own N-th call, and strace waits for
those that outlive a killed parent, so that nothing is still at work when it ends. (`--seccomp-bpf`
would be faster, but injects nothing in strace 6.1.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CALL = re.compile(r"(?:(\d+) +)?(\w+)\((\S*)")  # no process number without -f


class Place(NamedTuple):
    """The `number`-th call of `name`, from 1."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} #{self.number}"


def _strace(path: str, *, follow: bool) -> list[str]:
    return ["strace", *(["-f"] if follow else []), "-qq", "-e", "signal=none", "-o", path]


def record(path: str, *, follow: bool = True) -> list[str]:
    """Return what to put before a program so that its calls are recorded in a file."""
    return [*_strace(path, follow=follow), "-s", "0"]


def strike(place: Place, effect: str, *, follow: bool = True) -> list[str]:
    """Return what to put before a program; `effect` is `signal=KILL` or `error=EIO`."""
    what = f"inject={place.name}:{effect}:when={place.number}"
    return [*_strace("/dev/null", follow=follow), "-e", f"trace={place.name}", "-e", what]


def places(trace: str, *, after_stdin: bool = False) -> list[Place]:
    """Return every place of a recorded program, in order.

    `after_stdin` leaves out what comes before the first read of descriptor 0: the loader's and the
    interpreter's start. The counts include it all the same.
    """
    seen: dict[tuple[str, str], int] = {}
    found: dict[Place, bool] = {}
    started = not after_stdin
    for line in trace.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        process, name, argument = match.groups(default="")
        number = seen[process, name] = seen.get((process, name), 0) + 1
        started = started or (name == "read" and argument.startswith("0,"))
        found.setdefault(Place(name, number), started)
    return [place for place, is_wanted in found.items() if is_wanted]

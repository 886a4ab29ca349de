"""The name of a call of ADD, by which it knows its own work: 12 random hex digits, and the time.

The host veth that a call makes has the digits as its MAC, and a lease the time as the file's: so
a call takes back what it did itself, and nothing that another call did for the same attachment.
A launcher hands the name that it got from a resident process on to the plugin that takes over when
no answer came, and that knows as its own what the other one has done.
Imports os, time.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "CNI_FLANNEL_CALL"
_DIGITS = 12
_UNITS_NS = (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Of file systems' times: FAT keeps every second second, SMB 100 ns."""


def new() -> str:
    """A name that no other call has."""
    return f"{os.urandom(_DIGITS // 2).hex()}-{time.time_ns()}"


def ensure(environ: dict[str, str]) -> None:
    """Give a call its name, unless it has one."""
    if not (octets(environ) and time_ns(environ)):
        environ[VARIABLE] = new()


def octets(environ: Mapping[str, str]) -> bytes:
    """Six random octets of the call's own; none if it has no name."""
    try:
        found = bytes.fromhex(environ.get(VARIABLE, "")[:_DIGITS])
    except ValueError:
        return b""
    return found if len(found) == _DIGITS // 2 else b""


def time_ns(environ: Mapping[str, str]) -> int:
    """When the call came, in nanoseconds; 0 if it has no name."""
    text = environ.get(VARIABLE, "").rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) == 19 else 0


def is_time(environ: Mapping[str, str], mtime_ns: int) -> bool:
    """Whether a file's time, as precise as its file system keeps it, is that of the call."""
    came = time_ns(environ)
    return came > 0 and any(came - came % unit == mtime_ns for unit in _UNITS_NS)

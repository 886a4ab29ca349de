"""The lock that iptables-legacy takes for each change, and who holds it."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "XTABLES_LOCKFILE"
_USUAL = "/run/xtables.lock"


def holder() -> str:
    """Say who holds the lock; "" if nobody does, or it cannot be seen."""
    path = os.environ.get(VARIABLE) or _USUAL
    try:
        inode = str(os.stat(path).st_ino)
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for line in locks:
        words = line.split()  # 1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF
        if len(words) > 5 and words[1] != "->" and words[5].rpartition(":")[2] == inode:
            return f"{path} is held by process {words[4]}{_named(words[4])}"
    return ""


def _named(pid: str) -> str:
    try:
        return f" ({Path('/proc', pid, 'comm').read_text().strip()})"
    except OSError:
        return ""

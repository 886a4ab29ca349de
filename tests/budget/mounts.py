"""A program in mounts of its own, so that what an installation does elsewhere is not done here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def in_private(script: str, *command: str | Path) -> str:
    """Run a shell line that makes the mounts, then a command as its "$@"; what that printed."""
    if os.geteuid() != 0:
        pytest.skip("needs root to hide /run and /etc")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_systemd(*command: str | Path) -> str:
    """Run a command where no systemd is seen, so that the real one is not touched."""
    return in_private('mount -t tmpfs none /run && exec "$@"', *command)

"""What builds before the launchers' left: folders beside the plugins, whose users hold no lock."""

from __future__ import annotations

import glob
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = (b"CNI_FLANNEL_FROZEN=", b".cni-flannel-")
"""What the executables of those builds have in them."""

_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # its number is fixed in the kernel


def remove_pairs(folder: str, say: Callable[[str], None]) -> None:
    """Remove what is left of pairs from the plugins' folder, unless a process may use it."""
    here = glob.escape(folder)
    found = [os.path.dirname(one) for one in glob.glob(f"{here}/.cni-flannel-*/MARKER")]
    if glob.glob(f"{here}/cni-flannel/.cni-flannel-*/MARKER"):
        found.append(f"{folder}/cni-flannel")
    _remove(folder, found, glob.glob(f"{here}/.tmp-cni-flannel.*"), say)


def remove_daemons(folder: str, say: Callable[[str], None]) -> None:
    """Remove what is left of daemons from their folder, unless a process may use it."""
    here = glob.escape(folder)
    found = [os.path.dirname(one) for one in glob.glob(f"{here}/.flanneld-*/_internal")]
    _remove(folder, found, glob.glob(f"{here}/.tmp-flanneld.*"), say)


def _remove(
    folder: str, builds: list[str], unfinished: list[str], say: Callable[[str], None]
) -> None:
    for old in builds:
        if _is_used(folder, old):
            say(f"kept {old}, which may be in use; the next installation removes it")
        else:
            shutil.rmtree(old)
            say(f"removed {old}")
    for left in unfinished:
        shutil.rmtree(left, ignore_errors=True)


def _is_used(folder: str, old: str) -> bool:
    """Whether a process has mapped it, or one that was replaced; or processes cannot be seen."""
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        return True
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            executable = os.readlink(f"/proc/{pid}/exe")
            with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                mapped = f" {old}/" in maps.read()
        except OSError:
            continue
        if mapped or (executable.startswith(f"{folder}/") and executable.endswith(" (deleted)")):
            return True
    return False

"""This program: which build it is, and how to run it again for a part of its work."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

SELF = (
    (sys.executable,)
    if getattr(sys, "frozen", False)
    else (sys.executable, "-m", __name__.partition(".")[0])
)
_HERE = Path(__file__).parent
_MARKER = re.compile(r"flanneld (\S+), commit (\S+), (\S+), python (\S+)")


class Build(NamedTuple):
    """What a build was made from, and for."""

    version: str
    commit: str
    architecture: str
    python: str

    def __str__(self) -> str:
        return (
            f"flanneld {self.version}, commit {self.commit}, {self.architecture},"
            f" python {self.python}"
        )


@cache
def build() -> Build:
    """Give the build's file MARKER, which lies beside the program; of a checkout, what it says."""
    if getattr(sys, "frozen", False):
        marker = Path(sys.executable).with_name("MARKER")
        if marker.exists() and (found := _MARKER.match(marker.read_text(encoding="utf-8"))):
            return Build(*found.groups())
        return Build("unknown", "unknown", platform.machine(), platform.python_version())
    project = tomllib.loads((_HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    version: str = project["project"]["version"]
    return Build(version, "unknown", platform.machine(), platform.python_version())


def own_version() -> str:
    """Give the version, with the build's hash where it is frozen."""
    return build().version


def hold_build() -> None:
    """Keep the build's folder from being removed while this process runs (installation/builds)."""
    if getattr(sys, "frozen", False):
        fd = os.open(os.path.dirname(sys.executable), os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(fd, fcntl.LOCK_SH)

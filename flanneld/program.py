"""This program: its version, and how to run it again for a part of its work."""

from __future__ import annotations

import sys
import tomllib
from functools import cache
from pathlib import Path

SELF = (
    (sys.executable,)
    if getattr(sys, "frozen", False)
    else (sys.executable, "-m", __name__.partition(".")[0])
)
_HERE = Path(__file__).parent


@cache
def own_version() -> str:
    """Give the version of ``pyproject.toml``: of the checkout, or as it was frozen beside this."""
    frozen = _HERE / "VERSION"
    if frozen.exists():
        return frozen.read_text(encoding="ascii").strip()
    project = tomllib.loads((_HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    version: str = project["project"]["version"]
    return version

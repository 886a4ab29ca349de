"""The file MARKER of a built folder: which program it is, and which build."""

from __future__ import annotations

import os
import re

from flanneld.installation.errors import InstallError

_MARKER = re.compile(r"(?:cni-flannel|flanneld) ([0-9][\w.+-]*)[, \n]")


def build_name(folder: str) -> str:
    """Name a build by its version and the hash of what it was made from; InstallError."""
    try:
        with open(os.path.join(folder, "MARKER"), encoding="utf-8", errors="replace") as file:
            found = _MARKER.match(file.read(4096))
    except OSError:
        found = None
    if found is None:
        raise InstallError(f"{folder} is no build: ./build.sh makes one")
    return found[1]

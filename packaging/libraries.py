"""The shared libraries that programs need, the loader and the C library included.

What is frozen carries all of them, so that it runs on any Linux of its architecture, whatever C
library that has, or none. Called by plugins.spec; imports nothing of ours.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# As ldd(1) prints them: "libz.so.1 => /lib/libz.so.1 (0x...)", and "/lib64/ld-linux... (0x...)".
_LIBRARY = re.compile(r"^\s*(\S+) => (/\S+) \(0x", re.MULTILINE)
_LOADER = re.compile(r"^\s*(/\S+) \(0x", re.MULTILINE)


def closure(programs: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The loader's path, and of each library that one of the programs needs name and path."""
    libraries: dict[str, str] = {}
    loaders = set()
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        if "not found" in done.stdout:
            raise FileNotFoundError(f"{program} needs a library that is missing:\n{done.stdout}")
        libraries.update(_LIBRARY.findall(done.stdout))
        loaders.update(_LOADER.findall(done.stdout))
    (loader,) = {os.path.realpath(path) for path in loaders}
    return loader, {name: os.path.realpath(path) for name, path in sorted(libraries.items())}

"""The cgroups of a cluster and of its machines: a folder in each hierarchy that has controllers.

Programs stand in a leaf named `init`, since in version 2 a group has processes or controlled
children, not both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cgroups import ROOT, UNIFIED, controllers, hand_down, make

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"'

# For a shell in a mount namespace of its own: mount the hierarchies, as its cgroup namespace shows
# them. Arguments: what `hierarchies` gives.
MOUNT = f"""
if [ "$1" = {UNIFIED} ]; then
    mount -t cgroup2 cgroups {ROOT}
else
    mount -t tmpfs -o mode=755 cgroups {ROOT}
    for controllers; do
        mkdir "{ROOT}/$controllers"
        mount -t cgroup -o "$controllers" cgroups "{ROOT}/$controllers"
    done
fi
"""

# For a shell that has a cgroup namespace, and has mounted: go into the leaf.
LEAF = f"""
for top in {ROOT} {ROOT}/*; do
    if [ -e "$top/cgroup.procs" ] && [ "${{top##*/}}" != init ]; then
        mkdir "$top/init"
        echo 0 >"$top/init/cgroup.procs"
    fi
done
for controller in $(cat {ROOT}/cgroup.controllers 2>/dev/null); do
    echo "+$controller" >{ROOT}/cgroup.subtree_control
done
"""


def hierarchies() -> list[str]:
    """Give the controllers of each hierarchy, or the one word for that of version 2."""
    return controllers() or [UNIFIED]


class Cgroup:
    """A group, by its path below the root of every hierarchy, as a process sees them mounted."""

    def __init__(self, path: str, pid: int) -> None:
        self.path, self._pid = path, pid
        root = Path(f"/proc/{pid}/root{ROOT}")
        tops = (root if words == UNIFIED else root / words for words in hierarchies())
        self.folders = [top / path for top in tops]

    def make(self, weight: int = 1) -> None:
        """Make the group in every hierarchy, where it is missing."""
        for folder in self.folders:
            hand_down(folder.parent)
            make(folder, weight)

    def below(self, name: str) -> Cgroup:
        """Give a group below."""
        return Cgroup(f"{self.path}/{name}", self._pid)

    def remove(self) -> None:
        """Remove the group and all below, which have no processes any more."""
        for folder in self.folders:
            for inner, _, _ in os.walk(folder, topdown=False):
                Path(inner).rmdir()

    def names(self) -> Iterator[str]:
        """Give the groups below, in every hierarchy."""
        for folder in self.folders:
            for inner, _, _ in os.walk(folder):
                yield str(Path(inner).relative_to(folder.parent))

    def join(self) -> tuple[str, ...]:
        """Give the words that stand before a command which is to run in the group."""
        return ("sh", "-c", _JOIN, "join", *map(str, self.folders), "--")

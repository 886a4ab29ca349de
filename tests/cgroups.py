"""The hierarchies of cgroups, and groups in them.

With cgroups of version 1, or of both versions, each set of controllers has a hierarchy of its own;
with version 2 alone there is one. A path is valid where `mount_all` was called, and through
/proc/PID/root.
"""

from __future__ import annotations

from pathlib import Path

from tests.namespaces import mount

ROOT = Path("/sys/fs/cgroup")
UNIFIED = "unified"


def controllers() -> list[str]:
    """Give the controllers of each hierarchy of version 1, as mount(8) wants them."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    words = (line.split(":")[1] for line in lines)
    return [each for each in words if each and not each.startswith("name=")]


def mount_all() -> list[Path]:
    """Mount every hierarchy below ROOT, as this process' cgroup namespace shows it; where."""
    mount("tmpfs", str(ROOT), "mode=755")
    names = [*controllers(), UNIFIED]
    for name in names:
        (ROOT / name).mkdir()
        if name == UNIFIED:
            mount("cgroup2", str(ROOT / name))
        else:
            mount("cgroup", str(ROOT / name), name)
    return [ROOT / name for name in names]


def make(folder: Path, weight: int = 1) -> None:
    """Make a group where it is missing; in version 1, with the processors of the group above.

    Without them it would take no process. To the scheduler a group is as good as ``weight``
    processes beside it, however many run in it.
    """
    folder.mkdir(exist_ok=True)
    for name, one in (("cpu.shares", 1024), ("cpu.weight", 100)):
        if (folder / name).exists():
            (folder / name).write_text(str(one * weight))
    for file in (folder / "cpuset.cpus", folder / "cpuset.mems"):
        if file.exists() and (folder / "cgroup.clone_children").exists():
            file.write_text((folder.parent / file.name).read_text())
            (folder / "cgroup.clone_children").write_text("1")


def hand_down(folder: Path) -> None:
    """In version 2, let the groups below have all controllers. Not of the machine's own root."""
    if (folder / "cgroup.events").exists():
        for name in (folder / "cgroup.controllers").read_text().split():
            (folder / "cgroup.subtree_control").write_text(f"+{name}")

"""Why flanneld has not written its subnet.env: what this node shows of it, for a person to read.

Reads /proc and /sys and guesses; decides nothing. Imported only when the file is missing.
"""

from __future__ import annotations

import os

from cni import files

_COMM = b"flanneld"


def likely_reason(path: str, proc: str = "/proc", net: str = "/sys/class/net") -> str:
    """Return one or two sentences on the daemon's state and what to do."""
    pid = _find(proc)
    folder = os.path.dirname(path)
    if pid:
        return (
            f"flanneld runs (process {pid}) but has not written {path}: it waits for this node's "
            "subnet (no podCIDR yet? etcd or the API server out of reach?) or writes elsewhere "
            "(its option -subnet-file, a missing mount of the folder); its log says which"
        )
    link = _link(net)
    if link:
        return (
            f"flanneld is not running, but {link} exists: it ran since this node booted and ended; "
            "look at its last log and start it again"
        )
    if not os.path.isdir(folder):
        return (
            f"flanneld is not running and {folder} does not exist: it has not started since this "
            "node booted; is its DaemonSet or service enabled, does a taint keep it away?"
        )
    return (
        "flanneld is not running on this node; is its DaemonSet or service enabled, does a taint "
        "keep it away, does its image start?"
    )


def _find(proc: str) -> str:
    """Return the process ID of this node's flanneld, or "".

    One in another network namespace is another node's: several share a machine in tests.
    """
    for pid in _names(proc):
        if not pid.isdigit():
            continue
        try:
            comm = files.read(f"{proc}/{pid}/comm").strip()
            if comm == _COMM and _network(proc, pid) == _network(proc, "self"):
                return pid
        except OSError:  # it has ended meanwhile
            pass
    return ""


def _network(proc: str, pid: str) -> tuple[int, int]:
    stat = os.stat(f"{proc}/{pid}/ns/net")
    return stat.st_dev, stat.st_ino


def _link(net: str) -> str:
    """Return the name of an interface that flanneld makes, or ""."""
    for name in sorted(_names(net)):
        if name.startswith(("flannel.", "flannel-v6.", "flannel0", "flannel-wg")):
            return name
    return ""


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []

"""What the machine has that a cluster must leave alone."""

from __future__ import annotations

from pathlib import Path

_SYSCTLS = Path("/proc/sys")
_KERNEL = ("panic", "panic_on_oops", "keys/root_maxkeys", "keys/root_maxbytes")
_FOLDERS = ("/etc/cni", "/opt/cni", "/etc/kubernetes", "/var/lib/kubelet", "/var/log/pods")


def settings() -> dict[str, str]:
    """Read the sysctls that are the whole kernel's, and the names in folders of a node."""
    files = [_SYSCTLS / "kernel" / name for name in _KERNEL]
    files += (file for file in (_SYSCTLS / "vm").iterdir() if file.stat().st_mode & 0o400)
    files += (_SYSCTLS / "net/netfilter").glob("nf_conntrack*max")
    read = {str(file): file.read_text() for file in files}
    names = {top: " ".join(sorted(map(str, Path(top).rglob("*")))) for top in _FOLDERS}
    return {**read, **names}

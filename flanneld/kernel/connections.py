"""Whether the kernel still follows new connections: its table of them (nf_conntrack) has an end."""

from __future__ import annotations

from netlink import sysctl

_NAME = "net.netfilter.nf_conntrack_max"


def overflow() -> list[str]:
    """Say that the table is full, one sentence; nothing if it is not, or there is none."""
    count, most = (
        int(sysctl.read(f"net/netfilter/nf_conntrack_{name}") or 0) for name in ("count", "max")
    )
    if not most or count < most:
        return []
    full = f"the kernel's table of connections is full ({count} of {most}), and drops new ones"
    return [f"{full}: sysctl -w {_NAME}={2 * most}"]

"""Whether this node passes packets from one link to another, which all of its pods live by.

Knows: the switches of a network namespace (Documentation/networking/ip-sysctl.rst). Reads them
only: to turn them is the plugins' part, when the first pod comes.
"""

from __future__ import annotations

from netlink import sysctl

SWITCH = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""By IP version, as sysctl(8) names them."""


def is_on(version: int) -> bool | None:
    """Whether packets of an IP version are forwarded; None if the kernel does not have it."""
    value = sysctl.read(SWITCH[version].replace(".", "/"))
    return None if value is None else value != "0"


def obstacle(version: int, link: str) -> str:
    """Name the switch that keeps packets from being passed on that come in by a link; "" if none.

    IPv4 asks the link's own switch, which the node's sets when it is written.  IPv6 asks the
    node's, and newer kernels the link's ``force_forwarding``.
    """
    if version == 6:
        forced = sysctl.read(f"net/ipv6/conf/{link}/force_forwarding")
        return "" if is_on(6) or forced == "1" else SWITCH[6]
    if sysctl.read(f"net/ipv4/conf/{link}/forwarding") != "0":
        return ""
    return f"net.ipv4.conf.{link}.forwarding" if is_on(4) else SWITCH[4]


def filters_reverse_path(link: str) -> str:
    """Name the switch by which IPv4 packets must come in by the link that leads back; "" if off."""
    names = {name: sysctl.read(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", link)}
    strictest = max(names, key=lambda name: names[name] or "0")
    return "" if names[strictest] in {None, "0"} else f"net.ipv4.conf.{strictest}.rp_filter"

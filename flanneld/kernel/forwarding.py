"""Whether this node passes packets from one link to another, which all of its pods live by.

Knows: the switches of a network namespace (Documentation/networking/ip-sysctl.rst). Reads them
only: to turn them is the plugins' part, when the first pod comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlink import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable

SWITCH = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
"""By IP version, as sysctl(8) names them."""


def is_on(version: int) -> bool | None:
    """Whether packets of an IP version are forwarded; None if the kernel does not have it."""
    value = sysctl.read(SWITCH[version].replace(".", "/"))
    return None if value is None else value != "0"


def warnings(versions: Iterable[int]) -> list[str]:
    """Say of which versions none are, one sentence each."""
    return [
        f"{SWITCH[version]} is 0: this node forwards no packet, of a pod or to one. The plugins set"
        f" it to 1 for the first pod; if something sets it back: sysctl -w {SWITCH[version]}=1, and"
        " look into /etc/sysctl.d"
        for version in versions
        if is_on(version) is False
    ]

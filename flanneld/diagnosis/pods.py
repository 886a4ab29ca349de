"""The link that pods are on: the holder of the gateway's address, a bridge as a rule.

The plugins make it, with the first pod, and name it as their conf says.  So it is found by what it
has: the gateway's address, or a port whose alias is the plugin's.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.kernel import underlay
from flanneld.kernel.entries import RTN_LOCAL
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from flanneld.desired import AnyAddress, AnyNetwork
    from netlink.handle import Handle
    from netlink.link import Link

USUAL = "cni0"
_ALIAS = "flannel:"  # of the plugin's host veths
_UNREACHED = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES}


@dataclass(frozen=True, slots=True)
class PodsLink:
    """``link`` None: there is none yet, and no pod; ``has_gateway``: it has the gateway's address.

    ``orphans`` are pods' links that have lost their bridge, by name.
    """

    link: Link | None = None
    has_gateway: bool = False
    orphans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Uplink:
    """The external interface as it is, None if it is gone; has it this node's address."""

    link: Link | None = None
    has_address: bool = False


def uplink(handle: Handle, name: str, address: AnyAddress | None) -> Uplink:
    """Look at the external interface. OSError."""
    held = address is not None and local_link(handle, address) is not None
    return Uplink(handle.get_link(name), held)


def find(handle: Handle, subnet: AnyNetwork, known: str = "") -> PodsLink:
    """Find it; ``known`` is the name that it had before, if that is known. OSError."""
    holder = local_link(handle, subnet[1])
    if holder is not None:
        return PodsLink(holder, has_gateway=True)
    bridges = handle.links(kind="bridge")
    for bridge in sorted(bridges, key=lambda one: one.name not in {known, USUAL}):
        if bridge.name in {known, USUAL} or any(map(_is_pods, _ports(handle, bridge))):
            return PodsLink(bridge)
    alone = (link for link in handle.links(kind="veth") if not link.master and _is_pods(link))
    return PodsLink(orphans=tuple(link.name for link in alone))


def local_link(handle: Handle, address: AnyAddress) -> Link | None:
    """Give the link that has an address of this node; None if it is none. OSError."""
    try:
        route = underlay.matching(handle, address)
    except NetlinkError as error:
        if error.errno in _UNREACHED:
            return None
        raise
    return handle.get_link(route.index) if route.type == RTN_LOCAL else None


def _ports(handle: Handle, bridge: Link) -> list[Link]:
    return handle.links(master=bridge.index)


def _is_pods(link: Link) -> bool:
    return link.alias.startswith(_ALIAS)

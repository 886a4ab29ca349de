"""What there is to know about the way from a pod's address to another: read, not judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flanneld.diagnosis.paths import paths
from flanneld.kernel import forwarding, underlay
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.diagnosis.node import View
    from flanneld.diagnosis.paths import PeerPath
    from flanneld.lease import Lease
    from netlink import rtnl
    from netlink.link import Link

NUD_FAILED = 0x20


@dataclass(frozen=True, slots=True)
class Taken:
    """The route that the kernel takes to an address; ``refusal`` instead if it has none.

    ``text`` is as ip(8) spells the route, ``link`` where it leads out.
    """

    route: rtnl.Route | None = None
    text: str = ""
    link: Link | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The two addresses, this node, and what the kernel says of the way.

    ``forwarding`` is None if the kernel lacks the family. ``hop_state`` is the state (NUD_*) of
    the neighbour that the tunnel's or the route's packets go to first; None if there is no entry.
    ``path`` is that to the target's subnet, None if it is no peer's.
    """

    source: AnyAddress
    target: AnyAddress
    view: View
    forwarding: bool | None
    routes: Mapping[AnyAddress, Taken] = field(default_factory=dict)
    hop_state: int | None = None
    path: PeerPath | None = None


def holder(view: View, address: AnyAddress) -> Lease | None:
    """Find the lease that an address is of: this node's, or a peer's."""
    for lease in (view.state.lease, *view.state.peers):
        for subnet in (lease.subnet, lease.subnet6):
            if subnet is not None and _is_in(address, subnet):
                return lease
    return None


def _is_in(address: AnyAddress, subnet: AnyNetwork) -> bool:
    return address.version == subnet.version and address in subnet


def public_ip(lease: Lease, version: int) -> AnyAddress | None:
    """Give what a lease's holder publishes in a family."""
    told = lease.attributes
    return told.public_ip if version == 4 else told.public_ip6


def gather(view: View, source: AnyAddress, target: AnyAddress) -> Facts:
    """Ask the kernel. OSError."""
    lease = holder(view, target)
    far = None if lease is None else public_ip(lease, target.version)
    with Handle() as handle:
        asked = [source, target, *([far] if far is not None else [])]
        routes = {address: _taken(handle, address) for address in asked}
        hop_state = None if far is None else _hop_state(handle, far, routes[far])
    return Facts(
        source=source,
        target=target,
        view=view,
        forwarding=forwarding.is_on(target.version),
        routes=routes,
        hop_state=hop_state,
        path=next((path for path in paths(view) if _is_in(target, path.subnet)), None),
    )


def _taken(handle: Handle, address: AnyAddress) -> Taken:
    try:
        route = underlay.matching(handle, address)
    except NetlinkError as error:
        return Taken(refusal=str(error))
    link = handle.get_link(route.index) if route.index else None
    return Taken(route, underlay.describe(handle, route), link)


def _hop_state(handle: Handle, far: AnyAddress, taken: Taken) -> int | None:
    if taken.route is None or not taken.route.index:
        return None
    hop = str(taken.route.gw) if taken.route.gw is not None else str(far)
    entries = handle.neighbours(taken.route.index, far.version)
    return next((entry.state for entry in entries if str(entry.address) == hop), None)

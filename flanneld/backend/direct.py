"""The path without a tunnel: a route by way of the peer itself, on the link that both are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend.peers import Unusable
from flanneld.desired import Route

if TYPE_CHECKING:
    from flanneld.backend.base import External
    from flanneld.backend.peers import Peer


def route(peer: Peer, external: External) -> Route:
    """Plan the route; Unusable if a router is between the two nodes."""
    if not external.is_onlink(peer.public_ip):
        reached = ", ".join(
            str(prefix) for prefix in external.onlink if prefix.version == peer.public_ip.version
        )
        raise Unusable(
            f"it cannot be the gateway: it is not on the link of {external.name}, which reaches"
            f" {reached or 'no prefix of its family'}. host-gw needs all nodes on one link;"
            " vxlan does not"
        )
    return Route(external.name, peer.subnet, peer.public_ip)

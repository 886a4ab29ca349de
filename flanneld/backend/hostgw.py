"""host-gw: a route to each peer by way of the peer, no tunnel, the full MTU.

A peer that publishes vxlan is reached in the same way, while a cluster changes from one to the
other: it is on the same link, forwards what comes, and answers by the type that this node
publishes, so that both directions take one path (strict reverse path filters see no difference).
Until it has read that type, or for ever if it is a Go daemon, it sends to the VXLAN device that
this node had before: as long as there is such a peer, that device stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend import direct, peers
from flanneld.backend.peers import Unusable
from flanneld.config import ConfigError
from flanneld.desired import Desired
from flanneld.lease import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.backend.base import External, Identity
    from flanneld.config import NetConf
    from flanneld.desired import Route
    from flanneld.lease import Lease


class HostGwBackend:
    """The backend ``host-gw`` of one network."""

    name = "host-gw"
    devices = ("", "")
    port = 0

    def __init__(self, conf: NetConf) -> None:
        """Take the network's configuration; the backend has no keys of its own."""
        self._networks = tuple(net for net in (conf.network, conf.network6) if net is not None)

    def attributes(self, external: External, identity: Identity) -> Attributes:
        """Publish the address that is the gateway; ConfigError behind NAT."""
        del identity
        pairs = (
            (external.public_ip, external.address),
            (external.public_ip6, external.address6),
        )
        for public_ip, address in pairs:
            if public_ip != address:
                raise ConfigError(
                    "your PublicIP differs from interface IP, meaning that probably you're on a"
                    f" NAT, which is not supported by host-gw backend: {public_ip} is published,"
                    f" {external.name} has {address}"
                )
        return Attributes(external.public_ip, external.public_ip6, self.name)

    def mtu(self, external: External) -> int:
        """Give the interface's own: nothing is added to a packet."""
        return external.mtu

    def plan(
        self, own: Lease, leases: Iterable[Lease], external: External, identity: Identity
    ) -> Desired:
        """Plan a route to each peer that is on the link."""
        del identity
        found = peers.check(own, leases, external, self._networks)
        routes: set[Route] = set()
        for peer in found.usable:
            try:
                if peer.backend_type not in {"host-gw", "vxlan"}:
                    raise peers.foreign(peer)
                routes.add(direct.route(peer, external))
            except Unusable as error:
                found.problems.append(f"{peer}: {error}")
        return Desired(
            routes=frozenset(routes),
            networks=frozenset(self._networks),
            keeps_devices=any(peer.backend_type == "vxlan" for peer in found.usable),
            problems=tuple(found.problems),
            warnings=tuple(found.warnings),
        )

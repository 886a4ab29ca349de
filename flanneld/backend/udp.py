"""udp: packets as they are in datagrams, by a process of this node; for where nothing else passes.

IPv4 only, as the wire format is the Go daemon's.  Whoever knows a node's address could put packets
into the network; those that no node has sent are dropped, unless ``AnySource`` is set: for peers
whose datagrams come from another address than the one that they publish.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from flanneld import config
from flanneld.backend import peers
from flanneld.config import ConfigError
from flanneld.desired import Address, Desired, Route
from flanneld.forward.forwarding import Forwarding
from flanneld.lease import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.backend.base import External, Identity
    from flanneld.backend.peers import Peer
    from flanneld.config import NetConf
    from flanneld.lease import Lease

DEVICE = "flannel0"
PORT = 8285
OVERHEAD = 28  # bytes of the outer IPv4 and UDP headers
_LEAST_MTU = 68  # bytes; RFC 791


class UdpBackend:
    """The backend ``udp`` of one network."""

    name = "udp"
    devices = ("", "")

    def __init__(self, conf: NetConf) -> None:
        """Read the backend's keys; ConfigError if one is wrong, or if the network has IPv6."""
        if conf.network6 is not None:
            raise ConfigError(
                f"the udp backend carries IPv4 alone, and IPv6Network is {conf.network6}: set"
                ' "EnableIPv6": false, or take the vxlan or host-gw backend'
            )
        if conf.network is None:
            raise ConfigError("the udp backend needs a Network")
        self._network = IPv4Network(conf.network)
        self.port = config.number(conf.backend, "Port", default=PORT, largest=0xFFFF)
        if not self.port:
            raise ConfigError('Backend: "Port" is 0; all nodes have the same, from 1 to 65535')
        self._strict = not config.boolean(conf.backend, "AnySource", default=False)

    def attributes(self, external: External, identity: Identity) -> Attributes:
        """Publish the address alone, without a type, as Go does."""
        del identity
        return Attributes(external.public_ip)

    def mtu(self, external: External) -> int:
        """Give what is left of the interface's after two headers; ConfigError if too little is."""
        mtu = external.mtu - OVERHEAD
        if mtu < _LEAST_MTU:
            raise ConfigError(f"the MTU of {external.name} is {external.mtu}: too small for udp")
        return mtu

    def plan(
        self, own: Lease, leases: Iterable[Lease], external: External, identity: Identity
    ) -> Desired:
        """Plan the device's address, and one route for the whole network.

        Where the underlay is in that, a route for each peer.
        """
        del identity
        found = peers.check(own, leases, external, (self._network,))
        foreign = [f"{peer}: {peers.foreign(peer)}" for peer in found.usable if peer.backend_type]
        behind = [subnet for subnet, _ in _ways(found.usable)]
        reached: Iterable[IPv4Network] = [self._network]
        if external.reserved or any(peer.public_ip in self._network for peer in found.usable):
            reached = behind
        base = IPv4Interface((_subnet(own).network_address, 32))
        return Desired(
            addresses=frozenset({Address(DEVICE, base)}),
            routes=frozenset(Route(DEVICE, network, None) for network in reached),
            networks=frozenset({self._network}),
            covered=frozenset(behind),
            problems=(*found.problems, *foreign),
            warnings=tuple(found.warnings),
        )

    def forwarding(self, own: Lease, leases: Iterable[Lease], external: External) -> Forwarding:
        """Plan what the forwarder does; ConfigError if the interface has no IPv4 address."""
        if external.address is None:
            raise ConfigError(f"{external.name} has no IPv4 address, which the udp backend needs")
        found = peers.check(own, leases, external, (self._network,))
        return Forwarding(
            device=DEVICE,
            mtu=self.mtu(external),
            local=external.address,
            port=self.port,
            strict=self._strict,
            network=self._network,
            subnet=_subnet(own),
            nodes=dict(_ways(found.usable)),
        )


def _subnet(own: Lease) -> IPv4Network:
    if own.subnet is None:
        raise ConfigError("the udp backend needs an IPv4 subnet, and this node's lease has none")
    return own.subnet


def _ways(usable: Iterable[Peer]) -> Iterable[tuple[IPv4Network, IPv4Address]]:
    """Give the subnets of those who publish no type, as udp does, with their addresses."""
    for peer in usable:
        if not peer.backend_type:
            yield IPv4Network(peer.subnet), IPv4Address(peer.public_ip)

"""The seam between the daemon and the backends.

A backend is chosen by the network's configuration and says what this node publishes.  Peers are
planned by the type that each of them publishes, so a cluster can change its backend node by node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

    from flanneld.desired import AnyAddress, AnyNetwork, Desired
    from flanneld.forward.forwarding import Forwarding
    from flanneld.lease import Attributes, Lease


@dataclass(frozen=True, slots=True)
class External:
    """The interface that reaches the other nodes, and this node's addresses on it.

    ``address`` is the interface's own, ``public_ip`` what the others are told (they differ behind
    NAT); ``mtu`` is the interface's, in bytes; ``onlink`` the prefixes that it reaches without a
    gateway.  ``local`` are all addresses of the node by which others may know it; ``reserved`` is
    what of its underlay lies in the network: links' prefixes, gateways, addresses.
    """

    name: str
    index: int
    mtu: int
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    public_ip: IPv4Address | None = None
    public_ip6: IPv6Address | None = None
    onlink: tuple[AnyNetwork, ...] = ()
    local: tuple[AnyAddress, ...] = ()
    reserved: tuple[AnyNetwork, ...] = ()

    def is_onlink(self, address: AnyAddress) -> bool:
        """Whether an address is reached on the interface itself."""
        return any(address in network for network in self.onlink)


@dataclass(frozen=True, slots=True)
class Identity:
    """What of this node outlives a restart: the MACs of its VXLAN devices, one of each family."""

    mac: str = ""
    mac6: str = ""


class Backend(Protocol):
    """A type of network.  All methods are pure; ``ValueError`` names what cannot be."""

    name: str  # as in ``Backend.Type``
    devices: tuple[str, str]  # the names of its VXLAN devices, IPv4's and IPv6's; "" if none
    port: int  # the UDP port that other nodes send to; 0 if it has no tunnel

    def attributes(self, external: External, identity: Identity) -> Attributes:
        """Say what this node publishes."""
        ...

    def mtu(self, external: External) -> int:
        """Give the MTU of pods in bytes, for ``FLANNEL_MTU``: the least of the families' ones."""
        ...

    def plan(
        self, own: Lease, peers: Iterable[Lease], external: External, identity: Identity
    ) -> Desired:
        """Plan this node's devices, and the paths to all peers by the type each publishes."""
        ...


@runtime_checkable
class Forwards(Protocol):
    """What a backend has besides if packets pass through a process of the daemon's own."""

    def forwarding(self, own: Lease, leases: Iterable[Lease], external: External) -> Forwarding:
        """Plan the device and the process that moves its packets; pure, ``ValueError`` as above."""
        ...

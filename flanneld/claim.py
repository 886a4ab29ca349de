"""Which lease is this node's: what shows it.  Pure.

A public address alone shows little: an address that moves from node to node (keepalived, kube-vip)
would hand one node's subnet to the next.  So the MAC of a device is asked first; then the subnet
that the node had, with an address that it has or had; and only then the address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flanneld.lease import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.lease import Lease


@dataclass(frozen=True, slots=True)
class Claim:
    """What a node has to show.

    ``attributes`` is what it will publish; without an address it is not decided yet.  ``macs`` are
    those of its devices, ``addresses`` those of its interfaces.  ``last`` is the lease that it held
    in its last run, as it was; ``previous`` the subnets in its ``subnet.env``, whoever wrote it.
    ``avoid`` is not to be leased; of it ``uplink`` not even if it is this node's already.
    ``named`` is the key of the lease that the store itself knows to be this node's, "" for none;
    then nothing else counts.
    """

    attributes: Attributes = field(default_factory=Attributes)
    macs: frozenset[str] = frozenset()
    addresses: frozenset[AnyAddress] = frozenset()
    last: Lease | None = None
    previous: Lease | None = None
    uplink: tuple[AnyNetwork, ...] = ()
    avoid: tuple[AnyNetwork, ...] = ()
    named: str | None = None

    def own(self, leases: Iterable[Lease]) -> list[Lease]:
        """Find this node's leases: those that are surely its first, then the newest."""
        found = [(self._weight(lease), lease.since, lease) for lease in leases]
        ranked = sorted((one for one in found if one[0]), key=lambda one: one[:2], reverse=True)
        return [lease for _, _, lease in ranked]

    def is_sure(self, lease: Lease) -> bool:
        """Whether more than the address says that a lease is this node's."""
        return self._weight(lease) > 1

    def had(self, lease: Lease) -> bool:
        """Whether these are the subnets that this node had before."""
        return any(one is not None and one.key == lease.key for one in (self.last, self.previous))

    def _weight(self, lease: Lease) -> int:
        """2: it is this node's; 1: it has its address, and nothing says otherwise; 0: it is not."""
        if self.named is not None:
            return 2 * (lease.key == self.named)
        if lease.attributes.macs & self.macs:
            return 2
        foreign = is_foreign(lease.attributes, self.macs)
        known = self.addresses
        if self.last is not None and not foreign:
            known = known.union(self.last.attributes.public_ips)
        if self.had(lease) and known.intersection(lease.attributes.public_ips):
            return 2
        return int(not foreign and has_address(lease, self.attributes))


def is_foreign(attributes: Attributes, macs: frozenset[str]) -> bool:
    """Whether attributes name other MACs than these."""
    theirs = attributes.macs
    return bool(theirs and macs and not theirs & macs)


def has_address(lease: Lease, attributes: Attributes) -> bool:
    """Whether a lease names the public address of these attributes.

    Where a network has no IPv4, its nodes are told apart by their IPv6 addresses.
    """
    if attributes.public_ip is not None:
        return lease.attributes.public_ip == attributes.public_ip
    return (
        attributes.public_ip6 is not None and lease.attributes.public_ip6 == attributes.public_ip6
    )

"""The node that is looked at, as the daemon has decided on it.  Values only.

The daemon makes it from what it holds, a command from what the daemon has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.backend.base import External
    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress, AnyNetwork, Desired
    from flanneld.lease import Lease


@dataclass(frozen=True, slots=True)
class Subject:
    """``port`` is the UDP port of the backend's tunnel, 0 if it has none.

    ``known`` is the link that pods were on the last time that it was seen, "" if it never was.
    ``forwarded`` are the IP versions that the node did pass on at some time since the start.
    """

    conf: NetConf
    external: External
    lease: Lease
    peers: tuple[Lease, ...]
    desired: Desired
    port: int = 0
    known: str = ""
    forwarded: frozenset[int] = frozenset()

    @property
    def versions(self) -> Iterator[int]:
        """The IP versions that the network has."""
        return (version for version in (4, 6) if self.network(version) is not None)

    def network(self, version: int) -> AnyNetwork | None:
        """Give the network of a family."""
        return self.conf.network if version == 4 else self.conf.network6

    def subnet(self, version: int) -> AnyNetwork | None:
        """Give this node's subnet of a family."""
        return subnet_of(self.lease, version)

    def address(self, version: int) -> AnyAddress | None:
        """Give this node's own address on its external interface."""
        return self.external.address if version == 4 else self.external.address6

    def is_tunnel(self, link: str) -> bool:
        """Whether packets out by a link go on in others."""
        return link != self.external.name


def subnet_of(lease: Lease, version: int) -> AnyNetwork | None:
    """Give a lease's subnet of a family."""
    return lease.subnet if version == 4 else lease.subnet6


def public_ip(lease: Lease, version: int) -> AnyAddress | None:
    """Give what a lease's holder publishes in a family."""
    told = lease.attributes
    return told.public_ip if version == 4 else told.public_ip6

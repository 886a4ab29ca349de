"""What the kernel holds of the network, in the shapes of what is desired. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flanneld.desired import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.desired import Address, Forward, Neighbour
    from flanneld.kernel.entries import RouteEntry
    from flanneld.kernel.vxlan import VxlanLink
    from netlink.link import Link


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set on a device beside its link; None where the kernel has no such setting."""

    accept_ra: bool | None
    tx_checksum_offload: bool | None


@dataclass(frozen=True, slots=True)
class Present:
    """A dump.

    ``links`` are those that the desired state names, as far as they exist, and all VXLAN devices;
    ``vxlans`` the latter. Neighbours and FDB entries are those of the desired devices, addresses
    those of links that should have one or may be stale. Routes are those of our protocol number
    and of Go's.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    vxlans: Mapping[str, VxlanLink] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict)
    addresses: frozenset[Address] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    routes: tuple[RouteEntry, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    def route(self, entry: RouteEntry) -> Route:
        """Give a route with its link by name: by number if no link of interest has it."""
        hop = entry.hop
        link = "" if hop.blackhole else self.names.get(hop.ifindex, f"if{hop.ifindex}")
        return Route(link, entry.destination, *hop[1:])

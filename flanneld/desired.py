"""What the kernel should hold for the network, as values that can be compared with a dump of it.

Planners (``backend``) make these from leases; ``kernel`` reads the same shapes from the kernel and
applies the difference.  A link is named, not numbered: its index changes when it is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import (
        IPv4Address,
        IPv4Interface,
        IPv4Network,
        IPv6Address,
        IPv6Interface,
        IPv6Network,
    )

    AnyAddress = IPv4Address | IPv6Address
    AnyNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device (``ip link add NAME type vxlan ...``; IFLA_VXLAN_*, linux/if_link.h)."""

    name: str
    vni: int
    port: int  # 0: the kernel's default, 8472
    underlay: str  # name of the interface that it is bound to
    local: AnyAddress
    mac: str
    mtu: int
    gbp: bool = False
    learning: bool = False
    tx_checksum_offload: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """An address of one of our own devices: ``ip address add INTERFACE dev LINK``."""

    link: str
    interface: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: ``ip neighbour replace ADDRESS lladdr MAC dev LINK nud permanent``."""

    link: str
    address: AnyAddress
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """A permanent FDB entry: ``bridge fdb replace MAC dev LINK dst REMOTE self permanent``."""

    link: str
    mac: str
    remote: AnyAddress


@dataclass(frozen=True, slots=True)
class Route:
    """``ip route replace DESTINATION via GATEWAY dev LINK [onlink] proto OURS``."""

    link: str
    destination: AnyNetwork
    gateway: AnyAddress | None
    onlink: bool = False
    scope_link: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """All of it.  ``problems`` names each peer that cannot be programmed, and why."""

    devices: frozenset[Vxlan] = frozenset()
    addresses: frozenset[Address] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    routes: frozenset[Route] = frozenset()
    problems: tuple[str, ...] = field(default=())

"""What the kernel should hold for the network, as values that can be compared with a dump of it.

Planners (``backend``) make these from leases; ``kernel`` reads the same shapes from the kernel and
applies the difference.  A link is named, not numbered: its index changes when it is made anew.
``str`` of each is what ip(8) or bridge(8) would be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

AnyAddress = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network
AnyInterface = IPv4Interface | IPv6Interface

_MARK = "flanneld "


def is_inside(network: AnyNetwork, networks: Iterable[AnyNetwork]) -> bool:
    """Whether a network is one of some networks, or a part of one."""
    return any(
        network.version == other.version
        and network.prefixlen >= other.prefixlen
        and network.network_address in other
        for other in networks
    )


def alias(network: AnyNetwork) -> str:
    """Give the interface alias (IFLA_IFALIAS) that marks a device as the daemon's own."""
    return f"{_MARK}{network}"


def network_of(text: str) -> AnyNetwork | None:
    """Give the network of a device with this alias; None if the alias is not the daemon's."""
    if not text.startswith(_MARK):
        return None
    try:
        return ip_network(text.removeprefix(_MARK))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device (``ip link add NAME type vxlan ...``; IFLA_VXLAN_*, linux/if_link.h).

    ``alias`` says whose it is: that of the network it serves. ``tx_checksum_offload`` None leaves
    the setting as somebody made it.
    """

    name: str
    vni: int
    port: int  # 0: the kernel's default, 8472
    underlay: str  # name of the interface that it is bound to
    local: AnyAddress
    mac: str
    mtu: int
    gbp: bool = False
    learning: bool = False
    tx_checksum_offload: bool | None = None
    alias: str = ""

    def __str__(self) -> str:
        port = f" dstport {self.port}" if self.port else ""
        return (
            f"device {self.name} address {self.mac} mtu {self.mtu} type vxlan id {self.vni}{port}"
            f" dev {self.underlay} local {self.local}"
            f" {'learning' if self.learning else 'nolearning'}{' gbp' if self.gbp else ''}"
            f"{' without tx checksum offload' if self.tx_checksum_offload is False else ''}"
        )


@dataclass(frozen=True, slots=True)
class Address:
    """An address of one of our own devices: ``ip address add INTERFACE dev LINK``."""

    link: str
    interface: AnyInterface

    def __str__(self) -> str:
        return f"address {self.interface} dev {self.link}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: ``ip neighbour replace ADDRESS lladdr MAC dev LINK nud permanent``."""

    link: str
    address: AnyAddress
    mac: str

    def __str__(self) -> str:
        return f"neighbour {self.address} lladdr {self.mac} dev {self.link}"


@dataclass(frozen=True, slots=True)
class Forward:
    """A permanent FDB entry: ``bridge fdb replace MAC dev LINK dst REMOTE self permanent``."""

    link: str
    mac: str
    remote: AnyAddress

    def __str__(self) -> str:
        return f"fdb {self.mac} dev {self.link} dst {self.remote}"


@dataclass(frozen=True, slots=True)
class Route:
    """``ip route replace DESTINATION via GATEWAY dev LINK [onlink] proto OURS``.

    Or ``ip route replace blackhole DESTINATION``: then ``link`` is empty.
    """

    link: str
    destination: AnyNetwork
    gateway: AnyAddress | None
    onlink: bool = False
    scope_link: bool = False
    blackhole: bool = False

    def __str__(self) -> str:
        if self.blackhole:
            return f"route blackhole {self.destination}"
        via = "" if self.gateway is None else f" via {self.gateway}"
        onlink = " onlink" if self.onlink else ""
        scope = " scope link" if self.scope_link else ""
        return f"route {self.destination}{via} dev {self.link}{onlink}{scope}"


Value = Vxlan | Address | Neighbour | Forward | Route


@dataclass(frozen=True, slots=True)
class Desired:
    """All of it.

    ``networks`` are the whole networks, those of an earlier configuration included: what lies
    inside them on a device of ours, or has our route protocol, and is not desired, is stale.
    ``covered`` are the subnets of peers that a wider route leads to; they have none of their own.
    ``keeps_devices`` lets devices of an earlier run be, for peers that still send to them.
    ``problems`` names each peer that cannot be programmed, and why; ``warnings`` what is odd with
    others, or with leases that are not this network's.
    """

    devices: frozenset[Vxlan] = frozenset()
    addresses: frozenset[Address] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    routes: frozenset[Route] = frozenset()
    networks: frozenset[AnyNetwork] = frozenset()
    covered: frozenset[AnyNetwork] = frozenset()
    keeps_devices: bool = False
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

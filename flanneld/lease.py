"""What nodes tell one another: a subnet, who holds it, and how its pods are reached.

Values only.  How a store spells them is in ``subnet``; what becomes of them in ``backend``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address, IPv6Network

MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NO_IPV4 = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the holder of a subnet publishes beside it (``LeaseAttrs`` of the Go daemon).

    ``backend_type`` is empty for udp and alloc.  The backend data are JSON objects (vxlan:
    ``VNI`` and ``VtepMAC``), one for each family, or None.
    """

    public_ip: IPv4Address | None = None
    public_ip6: IPv6Address | None = None
    backend_type: str = ""
    backend_data: Mapping[str, Any] | None = None
    backend_data6: Mapping[str, Any] | None = None

    @property
    def public_ips(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses that there are."""
        return tuple(one for one in (self.public_ip, self.public_ip6) if one is not None)

    @property
    def vteps(self) -> tuple[str, str]:
        """The MACs of vxlan devices, of IPv4 and IPv6; "" where there is none, or what is none."""
        return _mac(self.backend_data), _mac(self.backend_data6)

    @property
    def macs(self) -> frozenset[str]:
        """Those that there are."""
        return frozenset(self.vteps) - {""}


@dataclass(frozen=True, slots=True)
class Lease:
    """A node's subnets, one of each family that the network has.

    ``expires`` is the Unix time in seconds at which the store forgets the lease; None if it does
    not know, or never will (a reservation, a node object).  ``since`` orders the leases of one
    store by their beginning, the oldest first.
    """

    subnet: IPv4Network | None
    subnet6: IPv6Network | None
    attributes: Attributes = field(default_factory=Attributes)
    expires: float | None = None
    since: int = field(default=0, compare=False)

    @property
    def subnets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The subnets that there are."""
        return tuple(one for one in (self.subnet, self.subnet6) if one is not None)

    def overlaps(self, network: IPv4Network | IPv6Network) -> bool:
        """Whether a part of a subnet lies in a network."""
        subnet = self.subnet if network.version == 4 else self.subnet6
        return subnet is not None and (
            network.network_address in subnet or subnet.network_address in network
        )

    @property
    def key(self) -> str:
        """The subnets as stores spell them: ``10.1.2.0-24``, ``10.1.2.0-24&fd00::-64``.

        A lease without IPv4 has ``0.0.0.0-0`` in its place.
        """
        subnet = self.subnet or _NO_IPV4
        text = f"{subnet.network_address}-{subnet.prefixlen}"
        if self.subnet6 is not None:
            text += f"&{self.subnet6.network_address}-{self.subnet6.prefixlen}"
        return text


def _mac(data: Mapping[str, Any] | None) -> str:
    mac = data.get("VtepMAC") if data else None
    return mac.lower() if isinstance(mac, str) and MAC.fullmatch(mac.lower()) else ""


def is_part(subnet: IPv4Network | IPv6Network, network: IPv4Network | IPv6Network) -> bool:
    """Whether a subnet can be a node's in this network, which has room for four at least."""
    return (
        subnet.version == network.version
        and subnet.prefixlen >= network.prefixlen + 2
        and subnet.network_address in network
    )

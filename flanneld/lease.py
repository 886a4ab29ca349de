"""What nodes tell one another: a subnet, who holds it, and how its pods are reached.

Values only.  How a store spells them is in ``subnet``; what becomes of them in ``backend``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address, IPv6Network

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


@dataclass(frozen=True, slots=True)
class Lease:
    """A node's subnets, one of each family that the network has.

    ``expires`` is the Unix time in seconds at which the store forgets the lease; None if it does
    not know, or never will (a reservation, a node object).
    """

    subnet: IPv4Network | None
    subnet6: IPv6Network | None
    attributes: Attributes = field(default_factory=Attributes)
    expires: float | None = None

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

"""What a node's forwarder is to do, as a value.  Pure: planned by ``backend.udp``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A TUN device, a UDP socket, and the node behind each subnet.

    ``local`` and ``port`` are the socket's; all nodes have the same port.  ``strict``: datagrams
    from an address that no node publishes are dropped.  What comes in is for ``subnet``, this
    node's, and from ``network``.
    """

    device: str
    mtu: int
    local: IPv4Address
    port: int
    network: IPv4Network
    subnet: IPv4Network
    strict: bool = True
    nodes: Mapping[IPv4Network, IPv4Address] = field(default_factory=dict)

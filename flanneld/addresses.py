"""Which addresses can be a node's: packets reach a node by them, and one node only.  Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.desired import AnyAddress, AnyNetwork

_NOBODYS: tuple[tuple[AnyNetwork, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "is no host's (0.0.0.0/8)"),
    (IPv4Network("127.0.0.0/8"), "is a loopback address"),
    (IPv4Network("224.0.0.0/4"), "is a multicast address"),
    (IPv4Network("255.255.255.255/32"), "is the broadcast address"),
    (IPv4Network("240.0.0.0/4"), "is reserved (240.0.0.0/4)"),
    (IPv6Network("::1/128"), "is the loopback address"),
    (IPv6Network("::ffff:0:0/96"), "is an IPv4 address"),
    (IPv6Network("::/8"), "is reserved (::/8)"),
    (IPv6Network("ff00::/8"), "is a multicast address"),
)


def fault(address: AnyAddress, onlink: Iterable[AnyNetwork] = ()) -> str:
    """Say why no node can have an address on these links; "" if one can."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "has a zone, which means something on its own node only"
    if not _is_common(address):
        for network, what in _NOBODYS:
            if address in network:
                return what
    for link in onlink:
        if link.version == address.version and link.num_addresses > 2:
            if address == link.network_address:
                return f"is the first of {link}, which is no host's"
            if address.version == 4 and address == link.broadcast_address:
                return f"is the broadcast address of {link}"
    return ""


def _is_common(address: AnyAddress) -> bool:
    """Whether it is outside of all of the table: nearly every address is, and there are many."""
    first = address.packed[0]
    if address.version == 4:
        return 0 < first < 127 or 127 < first < 224
    return 0 < first < 0xFF

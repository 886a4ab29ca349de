"""How a store spells leases: the key of a subnet, and the JSON of what its holder publishes.

Byte for byte what the Go daemon writes, so that nodes of both kinds form one network, and as
lenient in reading as it is (pkg/subnet/subnet.go, pkg/lease/lease.go).  Pure.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, TypeVar

from flanneld.config import lookup
from flanneld.lease import Attributes, Lease

if TYPE_CHECKING:
    from collections.abc import Mapping

Address = TypeVar("Address", IPv4Address, IPv6Address)

_KEY = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$")
_NO_IPV4 = IPv4Network("0.0.0.0/0")  # the first half of a key of a network without IPv4


class BadLease(ValueError):
    """A key or a value is not a lease; ``str`` shows it and says why."""


def subnets(text: str) -> tuple[IPv4Network | None, IPv6Network | None]:
    """Read the subnets that a key ends with; BadLease if it does not."""
    match = _KEY.search(text)
    if match is None:
        raise BadLease(f"key {text!r} is not ADDRESS-LENGTH or ADDRESS-LENGTH&ADDRESS6-LENGTH6")
    address, length, address6, length6 = match.groups()
    try:
        subnet = IPv4Network((address, int(length)))
        subnet6 = IPv6Network((address6, int(length6))) if address6 else None
    except ValueError as error:
        raise BadLease(f"key {text!r} does not spell a subnet: {error}") from None
    if subnet == _NO_IPV4 and subnet6 is not None:
        return None, subnet6
    if not 0 < subnet.prefixlen <= 31 or (subnet6 is not None and subnet6.prefixlen > 127):
        raise BadLease(f"key {text!r} does not spell a node's subnet: its length is out of range")
    return subnet, subnet6


def value(attributes: Attributes) -> bytes:
    """Write what the holder publishes: compact JSON, fields in Go's order."""
    document: dict[str, Any] = {
        "PublicIP": str(attributes.public_ip or IPv4Address(0)),
        "PublicIPv6": str(attributes.public_ip6) if attributes.public_ip6 else None,
    }
    optional = {
        "BackendType": attributes.backend_type,
        "BackendData": attributes.backend_data,
        "BackendV6Data": attributes.backend_data6,
    }
    document |= {name: data for name, data in optional.items() if data not in ("", None)}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def attributes(raw: bytes) -> Attributes:
    """Read what a holder publishes; BadLease if it is not that."""
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise BadLease(f"value {raw!r} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadLease(f"value {raw!r} is not a JSON object")
    backend_type = lookup(document, "BackendType", "")
    if not isinstance(backend_type, str):
        raise BadLease(f"value {raw!r}: BackendType is not a string")
    return Attributes(
        public_ip=_address(document, "PublicIP", IPv4Address, raw),
        public_ip6=_address(document, "PublicIPv6", IPv6Address, raw),
        backend_type=backend_type,
        backend_data=_data(document, "BackendData", raw),
        backend_data6=_data(document, "BackendV6Data", raw),
    )


def lease(text: str, raw: bytes, expires: float | None = None) -> Lease:
    """Read a key and its value; BadLease names the one that is wrong."""
    subnet, subnet6 = subnets(text)
    try:
        return Lease(subnet, subnet6, attributes(raw), expires)
    except BadLease as error:
        raise BadLease(f"key {text!r}: {error}") from None


def _address(
    document: Mapping[str, Any], name: str, make: type[Address], raw: bytes
) -> Address | None:
    """Read an address; the unspecified one, which stands for none in Go's values, is None."""
    text = lookup(document, name, None)
    if text is None:
        return None
    try:
        address = make(text) if isinstance(text, str) else None
    except ValueError:
        address = None
    if address is None:
        raise BadLease(f"value {raw!r}: {name} {text!r} is not an address of its family")
    return None if address.is_unspecified else address


def _data(document: Mapping[str, Any], name: str, raw: bytes) -> Mapping[str, Any] | None:
    data = lookup(document, name, None)
    if data is not None and not isinstance(data, dict):
        raise BadLease(f"value {raw!r}: {name} is not a JSON object")
    return data

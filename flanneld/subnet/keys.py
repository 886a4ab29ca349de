"""How a store spells leases: the key of a subnet, and the JSON of what its holder publishes.

Byte for byte what the Go daemon writes, so that nodes of both kinds form one network, and as
lenient in reading as it is (pkg/subnet/subnet.go, pkg/lease/lease.go).  Pure.

One spelling of a key is a lease, the one that is written: two keys never mean one subnet.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, TypeVar

from flanneld import addresses, document
from flanneld.config import lookup
from flanneld.lease import Attributes, Lease
from flanneld.plain import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

Address = TypeVar("Address", IPv4Address, IPv6Address)

_KEY = re.compile(r"([\d.]{7,15})-(\d{1,3})(?:&([a-f\d:.]{2,45})-(\d{1,3}))?", re.ASCII)
_TYPE = re.compile(r"[!-~]{0,64}")
_NO_IPV4 = IPv4Network("0.0.0.0/0")  # the first half of a key of a network without IPv4


class BadLease(ValueError):
    """A key or a value is not a lease; ``str`` shows it and says why."""


def subnets(text: str) -> tuple[IPv4Network | None, IPv6Network | None]:
    """Read the subnets that a key spells; BadLease if it does not."""
    match = _KEY.fullmatch(text)
    if match is None:
        raise BadLease(
            f"the key {quoted(text)} is not ADDRESS-LENGTH or ADDRESS-LENGTH&ADDRESS6-LENGTH6"
        )
    address, length, address6, length6 = match.groups()
    try:
        subnet = IPv4Network((address, int(length)))
        subnet6 = IPv6Network((address6, int(length6))) if address6 else None
    except ValueError as error:
        raise BadLease(f"the key {quoted(text)} does not spell a subnet: {error}") from None
    lease = Lease(None if subnet == _NO_IPV4 and subnet6 is not None else subnet, subnet6)
    if lease.key != text:
        raise BadLease(f"the key {quoted(text)} is another spelling of {lease.key}")
    if not all(0 < net.prefixlen < net.max_prefixlen for net in lease.subnets):
        raise BadLease(f"the key {text!r} does not spell a node's subnet: its length is not one")
    return lease.subnet, lease.subnet6


def value(attributes: Attributes) -> bytes:
    """Write what the holder publishes: compact JSON, fields in Go's order."""
    told: dict[str, Any] = {
        "PublicIP": str(attributes.public_ip or IPv4Address(0)),
        "PublicIPv6": str(attributes.public_ip6) if attributes.public_ip6 else None,
    }
    optional = {
        "BackendType": attributes.backend_type,
        "BackendData": attributes.backend_data,
        "BackendV6Data": attributes.backend_data6,
    }
    told |= {name: data for name, data in optional.items() if data not in ("", None)}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


def attributes(raw: bytes) -> Attributes:
    """Read what a holder publishes; BadLease if it is not that."""
    try:
        return published(document.load(raw))
    except ValueError as error:
        raise BadLease(f"the value {quoted(raw)}: {error}") from None


def lease(text: str, raw: bytes, expires: float | None = None) -> Lease:
    """Read a key and its value; BadLease names the one that is wrong."""
    subnet, subnet6 = subnets(text)
    try:
        return Lease(subnet, subnet6, attributes(raw), expires)
    except BadLease as error:
        raise BadLease(f"key {text}: {error}") from None


def published(told: Any) -> Attributes:
    """Read the same from a document that was checked; ValueError says what is wrong with it."""
    if not isinstance(told, dict):
        raise BadLease("it is not a JSON object")
    backend_type = lookup(told, "BackendType", "")
    if not isinstance(backend_type, str) or not _TYPE.fullmatch(backend_type):
        raise ValueError(f"BackendType {quoted(backend_type)} is not a word")
    found = Attributes(
        public_ip=_address(told, "PublicIP", IPv4Address),
        public_ip6=_address(told, "PublicIPv6", IPv6Address),
        backend_type=backend_type,
        backend_data=_data(told, "BackendData"),
        backend_data6=_data(told, "BackendV6Data"),
    )
    wrong = {address: addresses.fault(address) for address in found.public_ips}
    if all(wrong.values()):
        why = " and ".join(f"{address} {fault}" for address, fault in wrong.items())
        raise ValueError(f"it names no node's address: {why or 'it has none'}")
    return found


def _address(told: Mapping[str, Any], name: str, make: type[Address]) -> Address | None:
    """Read an address; the unspecified one, which stands for none in Go's values, is None."""
    text = lookup(told, name, None)
    if text is None:
        return None
    try:
        address = make(text) if isinstance(text, str) else None
    except ValueError:
        address = None
    if address is None:
        raise ValueError(f"{name} {quoted(text)} is not an address of its family")
    return None if address.is_unspecified else address


def _data(told: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    data = lookup(told, name, None)
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"{name} is not a JSON object")
    return data

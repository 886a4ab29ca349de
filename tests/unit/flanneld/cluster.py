"""A network of numbered nodes: node N has 10.244.N.0/24 and fd44:0:0:N::/64, and is 192.168.9.N."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from flanneld import config
from flanneld.backend.base import External, Identity
from flanneld.desired import Vxlan
from flanneld.lease import Attributes, Lease


def identity(n: int) -> Identity:
    """The MACs of node N's devices."""
    return Identity(_mac("04", n), _mac("06", n))


def _mac(family: str, n: int) -> str:
    return f"02:00:00:{family}:{n >> 8:02x}:{n & 0xFF:02x}"


IDENTITY = identity(1)
DEVICE = Vxlan(  # node 1's, in IPv4
    name="flannel.1",
    vni=1,
    port=0,
    underlay="eth0",
    local=IPv4Address("192.168.9.1"),
    mac=IDENTITY.mac,
    mtu=1450,
    alias="flanneld 10.244.0.0/16",
)


def conf(type_: str = "vxlan", *, families: str = "4", **backend: Any) -> config.NetConf:
    """The network's configuration; `families` holds the digits 4 and 6."""
    document = {
        "Network": "10.244.0.0/16",
        "EnableIPv4": "4" in families,
        "IPv6Network": "fd44::/48",
        "EnableIPv6": "6" in families,
        "Backend": {"Type": type_, **backend},
    }
    return config.parse(json.dumps(document))


def external(
    n: int = 1, *, families: str = "46", name: str = "eth0", index: int = 2, **more: Any
) -> External:
    """Node N's interface."""
    address = IPv4Address("192.168.9.0") + n if "4" in families else None
    address6 = IPv6Address("fd09::") + n if "6" in families else None
    values: dict[str, Any] = {
        "mtu": 1500,
        "address": address,
        "address6": address6,
        "public_ip": address,
        "public_ip6": address6,
        "onlink": (IPv4Network("192.168.9.0/24"), IPv6Network("fd09::/64")),
    }
    return External(name=name, index=index, **{**values, **more})


def lease(n: int, kind: str = "vxlan", *, families: str = "4", **told: Any) -> Lease:
    """The lease of node N: `told` are fields of its attributes that differ."""
    four, six = "4" in families, "6" in families
    data, data6 = ({"VNI": 1, "VtepMAC": _mac(family, n)} for family in ("04", "06"))
    values: dict[str, Any] = {
        "public_ip": IPv4Address("192.168.9.0") + n if four else None,
        "public_ip6": IPv6Address("fd09::") + n if six else None,
        "backend_type": kind,
        "backend_data": data if four and kind == "vxlan" else None,
        "backend_data6": data6 if six and kind == "vxlan" else None,
    }
    return Lease(
        IPv4Network((int(IPv4Address("10.244.0.0")) + (n << 8), 24)) if four else None,
        IPv6Network((int(IPv6Address("fd44::")) + (n << 64), 64)) if six else None,
        Attributes(**{**values, **told}),
    )

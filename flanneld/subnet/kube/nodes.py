"""What a Node object says of a lease, and the annotations that a node writes.  Pure.

Names and values are the Go daemon's, byte for byte (pkg/subnet/kube), so that nodes of both kinds
are one network, and one can take over a Node from the other.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flanneld import document
from flanneld.flags import UsageError
from flanneld.lease import Attributes, Lease, is_part
from flanneld.plain import quoted
from flanneld.subnet.keys import BadLease

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.config import NetConf
    from flanneld.desired import AnyNetwork

Address = TypeVar("Address", IPv4Address, IPv6Address)

MARKER, TYPE, DATA, DATA6 = "kube-subnet-manager", "backend-type", "backend-data", "backend-v6-data"
IP, IP6 = "public-ip", "public-ipv6"
OVERWRITE, OVERWRITE6 = "public-ip-overwrite", "public-ipv6-overwrite"
NODE_IP, NODE_IP6 = "node-public-ip", "node-public-ipv6"
WRITTEN = (MARKER, TYPE, DATA, DATA6, IP, IP6)
NAMES = (*WRITTEN, OVERWRITE, OVERWRITE6, NODE_IP, NODE_IP6)
_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")


class Seen(NamedTuple):
    """What is kept of a Node: ``values`` are those of the annotations NAMES, None for none."""

    name: str
    uid: str
    cidrs: tuple[str, ...]
    values: tuple[str | None, ...]

    def said(self, name: str) -> str:
        """Give an annotation, "" if it is not there."""
        return self.values[NAMES.index(name)] or ""


def prefix(text: str) -> str:
    """Complete ``--kube-annotation-prefix`` as the Go daemon does; UsageError."""
    whole = text if "/" in text else f"{text}/"
    if not whole.endswith(("/", "-")):
        whole += "-"
    if not _PREFIX.fullmatch(whole):
        raise UsageError(
            f'invalid value "{text}" for flag -kube-annotation-prefix: it must be like'
            " flannel.alpha.coreos.com, or flannel.alpha.coreos.com/name, in lower case"
        )
    return whole


def seen(node: Mapping[str, Any], prefix: str) -> Seen:
    """Keep what counts of a Node."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    if not isinstance(metadata["name"], str):
        raise TypeError("name")
    annotations = metadata.get("annotations") or {}
    cidrs = spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else ()
    values = tuple(annotations.get(prefix + name) for name in NAMES)
    return Seen(metadata["name"], metadata.get("uid", ""), tuple(cidrs), values)


def condition(node: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Give status and reason of a Node's condition, "" for one that it does not have."""
    for one in (node.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            return one.get("status", ""), one.get("reason", "")
    return "", ""


def subnets(node: Seen, conf: NetConf) -> tuple[IPv4Network | None, IPv6Network | None]:
    """Give the podCIDRs of the network's families; BadLease."""
    found: dict[int, AnyNetwork] = {}
    for text in node.cidrs:
        try:
            cidr = ip_network(text)
        except ValueError as error:
            raise BadLease(f"its podCIDR {quoted(text)} is wrong: {error}") from None
        found.setdefault(cidr.version, cidr)
    subnet, subnet6 = found.get(4), found.get(6)
    return (
        subnet if isinstance(subnet, IPv4Network) and conf.network else None,
        subnet6 if isinstance(subnet6, IPv6Network) and conf.network6 else None,
    )


def lease(node: Seen, conf: NetConf) -> Lease | None:
    """Read the lease of another node; None if it takes no part.  BadLease says what is wrong."""
    if node.said(MARKER) != "true":
        if node.said(TYPE) or node.said(DATA) or node.said(IP) or node.said(IP6):
            raise BadLease(f"its annotation {MARKER} is {quoted(node.said(MARKER))}, not true")
        return None
    subnet, subnet6 = subnets(node, conf)
    if subnet is None and subnet6 is None:
        raise BadLease("it has no podCIDR of this network's families")
    return Lease(
        subnet,
        subnet6,
        Attributes(
            public_ip=_address(node, IP, IPv4Address) if conf.network else None,
            public_ip6=_address(node, IP6, IPv6Address) if conf.network6 else None,
            backend_type=node.said(TYPE),
            backend_data=_data(node, DATA),
            backend_data6=_data(node, DATA6),
        ),
    )


def own(node: Seen, conf: NetConf, attributes: Attributes) -> Lease:
    """Give the lease that a node has by its podCIDRs; BadLease says what it still waits for."""
    subnet, subnet6 = subnets(node, conf)
    for found, network in ((subnet, conf.network), (subnet6, conf.network6)):
        if network is None:
            continue
        if found is None:
            family = f" of IPv{network.version}" if node.cidrs else ""
            raise BadLease(
                f"node {quoted(node.name)} pod cidr not assigned: it has no podCIDR{family}. It is"
                " given by kube-controller-manager with --allocate-node-cidrs and"
                f" --cluster-cidr={network} (kubeadm: --pod-network-cidr)"
            )
        if not is_part(found, network):
            raise BadLease(
                f"the podCIDR {found} of node {quoted(node.name)} does not lie in the network"
                f" {network}, or is more than a quarter of it: the network of net-conf.json and"
                " --cluster-cidr of kube-controller-manager are to be the same"
            )
    return Lease(subnet, subnet6, attributes)


def wanted(attributes: Attributes, node: Seen) -> dict[str, str | None]:
    """Give what a node writes, by name: None is for what is not to be there."""
    type_ = attributes.backend_type
    values: dict[str, str | None] = dict.fromkeys(WRITTEN)
    values |= {MARKER: "true", TYPE: type_}
    if type_ != "vxlan" or attributes.backend_data is not None:
        values[DATA] = _json(attributes.backend_data)
        values[IP] = _told(node, OVERWRITE, attributes.public_ip or IPv4Address(0))
    if attributes.public_ip6 is not None and (
        type_ == "host-gw" or (type_ in ("vxlan", "wireguard") and attributes.backend_data6)
    ):
        values[DATA6] = _json(attributes.backend_data6)
        values[IP6] = _told(node, OVERWRITE6, attributes.public_ip6)
    return values


def changes(values: Mapping[str, str | None], node: Seen) -> dict[str, str | None]:
    """Give what of these is not so yet."""
    now = dict(zip(NAMES, node.values, strict=True))
    return {name: value for name, value in values.items() if now[name] != value}


def asked(node: Seen) -> tuple[IPv4Address | IPv6Address, ...]:
    """Give the addresses that somebody has asked this node to have; BadLease."""
    both = (_address(node, NODE_IP, IPv4Address), _address(node, NODE_IP6, IPv6Address))
    return tuple(one for one in both if one is not None)


def _told(node: Seen, name: str, address: IPv4Address | IPv6Address) -> str:
    """Give the address that somebody wants others to be told, or else the node's own."""
    try:
        return str(type(address)(node.said(name)))
    except ValueError:
        return str(address)


def _json(data: Mapping[str, Any] | None) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _address(node: Seen, name: str, make: type[Address]) -> Address | None:
    """Read an address; the unspecified one stands for none in Go's values."""
    text = node.said(name)
    try:
        address = make(text) if text else None
    except ValueError:
        raise BadLease(
            f"its annotation {name} is {quoted(text)}, no address of its family"
        ) from None
    return None if address is None or address.is_unspecified else address


def _data(node: Seen, name: str) -> Mapping[str, Any] | None:
    """Read backend data; of an empty text, which stands for none, Go's daemon makes the same."""
    text = node.said(name)
    try:
        data = document.load(text) if text else None
    except ValueError as error:
        raise BadLease(f"its annotation {name} is {quoted(text)}, not JSON: {error}") from None
    if data is not None and not isinstance(data, dict):
        raise BadLease(f"its annotation {name} is {quoted(text)}, not a JSON object")
    return data

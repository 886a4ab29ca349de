"""What this node is in the network: decided at start, and anew when the node itself changes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from flanneld import external
from flanneld.desired import is_inside
from flanneld.kernel import interfaces
from flanneld.links import Known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld.backend.base import External, Identity
    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.lease import Lease
    from flanneld.links import Underlay, Way
    from flanneld.options import Options


@dataclass(frozen=True, slots=True)
class Node:
    """The network's configuration, this node's place in the underlay, its MACs, its lease.

    ``asked`` are addresses that the store wants it to have.
    """

    conf: NetConf
    external: External
    identity: Identity
    lease: Lease
    asked: tuple[AnyAddress, ...] = ()

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that the network has."""
        networks = (self.conf.network, self.conf.network6)
        return tuple(network.version for network in networks if network is not None)

    def known(self, peers: Iterable[Lease]) -> Known:
        """Say what is known of addresses now that this node has a lease."""
        return Known(
            held=frozenset(self.lease.attributes.public_ips),
            others=frozenset(ip for peer in peers for ip in peer.attributes.public_ips),
            pods=self.lease.subnets,
            now=self.external.name,
            asked=self.asked,
        )


def look(options: Options, conf: NetConf, known: Known) -> External:
    """Find the external interface as it is now, and what is around it; ExternalError, OSError."""
    seen = interfaces.read(options.iface_can_reach)
    found = external.choose(options, conf, seen, known)
    networks = [network for network in (conf.network, conf.network6) if network is not None]
    reached = [(way, _far(way)) for way in seen.ways]
    near = {
        far
        for way, far in reached
        if far.prefixlen and (way.link == found.index or not is_inside(far, known.pods))
    }
    near |= {ip_network(ip) for ip in (found.address, found.address6, *_store(options)) if ip}
    return replace(
        found,
        onlink=tuple(
            sorted(
                {far for way, far in reached if way.link == found.index and way.gateway is None},
                key=_order,
            )
        ),
        local=tuple(sorted(_local(seen, found, networks), key=_order)),
        # A network that is a part of a link's was carved out of it by somebody who knew.
        reserved=tuple(
            sorted((prefix for prefix in near if is_inside(prefix, networks)), key=_order)
        ),
    )


def _far(way: Way) -> AnyNetwork:
    """What a route needs: what is on a link, or the gateway there."""
    return way.destination if way.gateway is None else ip_network(way.gateway)


def _order(one: Any) -> tuple[int, Any]:
    return one.version, one


def _store(options: Options) -> Iterator[AnyAddress]:
    """Give the addresses of the store's members, as far as flags have them."""
    for url in options.etcd_endpoints if options.subnet_mgr == "etcd" else ():
        with suppress(ValueError):
            yield ip_address(url.rpartition("//")[2].rpartition(":")[0].strip("[]"))


def _local(seen: Underlay, found: External, networks: list[AnyNetwork]) -> set[AnyAddress]:
    """Give the addresses by which others may know this node: not pods' and Services' ones."""
    return {
        entry.address
        for one in seen.interfaces
        if one.kind != "dummy" and not one.is_flannels
        for entry in one.addresses
        if not (entry.address.is_loopback or entry.address.is_link_local)
        and (one.index == found.index or not any(entry.address in net for net in networks))
    }


def described(external: External) -> dict[str, object]:
    """Name what the log says of the external interface."""
    pairs = {
        "interface": external.name,
        "mtu": external.mtu,
        "address": external.address,
        "address6": external.address6,
        "public_ip": external.public_ip,
        "public_ip6": external.public_ip6,
    }
    return {name: value for name, value in pairs.items() if value is not None}

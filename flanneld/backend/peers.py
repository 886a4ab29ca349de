"""What a planner needs of the other nodes: their leases, one family at a time, checked.

Nothing that is published is taken on trust: a subnet outside the network would take over routes of
the node, two nodes with one MAC cannot both be reached. What cannot be used is named with its
holder, and never keeps another peer from being used.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flanneld.desired import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flanneld.backend.base import External
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.lease import Lease


class Unusable(ValueError):
    """A peer cannot be reached as it publishes; ``str`` says why, not whom."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One family of a peer's lease. ``data`` is the backend data of that family."""

    subnet: AnyNetwork
    public_ip: AnyAddress
    backend_type: str
    data: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"{self.subnet} of {self.public_ip}"


@dataclass(slots=True)
class Peers:
    """Those that can be planned, in the order of their subnets, and what was found about others."""

    usable: list[Peer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def foreign(peer: Peer) -> Unusable:
    """Say that a peer has no path from here by the type that it publishes."""
    kind = f"the backend type {peer.backend_type!r}" if peer.backend_type else "no backend type"
    return Unusable(f"it publishes {kind} (udp and alloc publish none): no path leads there")


def check(
    own: Lease, leases: Iterable[Lease], external: External, networks: Iterable[AnyNetwork]
) -> Peers:
    """Part the leases of all others into what is usable and what is not."""
    peers = Peers()
    by_version = {network.version: network for network in networks}
    own_subnets = {subnet.version: subnet for subnet in (own.subnet, own.subnet6) if subnet}
    ours = {address for address in (external.public_ip, external.public_ip6) if address}
    holders: dict[AnyNetwork, Peer] = {}
    for peer in sorted(_families(leases, by_version, peers), key=_order):
        network, own_subnet = by_version[peer.subnet.version], own_subnets.get(peer.subnet.version)
        if not is_inside(peer.subnet, [network]):
            peers.warnings.append(f"{peer}: it lies outside the network {network}; not programmed")
        elif peer.public_ip in ours:
            peers.warnings.append(
                f"{peer}: that is this node's own public address; not programmed. It is a lease"
                " from before, or another node publishes the same address"
            )
        elif own_subnet is not None and peer.subnet.overlaps(own_subnet):
            peers.problems.append(f"{peer}: it overlaps this node's own subnet {own_subnet}")
        elif peer.subnet in holders:
            peers.problems.append(
                f"{peer}: {holders[peer.subnet].public_ip} publishes the same subnet; that one is"
                " programmed. Delete the wrong lease"
            )
        else:
            holders[peer.subnet] = peer
            peers.usable.append(peer)
    peers.warnings += _shared(peers.usable)
    return peers


def _order(peer: Peer) -> tuple[int, AnyNetwork, AnyAddress]:
    return peer.subnet.version, peer.subnet, peer.public_ip


def _families(leases: Iterable[Lease], versions: Iterable[int], peers: Peers) -> Iterator[Peer]:
    """Take leases apart; those without an address in a family of theirs are named."""
    wanted = set(versions)
    for lease in leases:
        told = lease.attributes
        for subnet, public_ip, data in (
            (lease.subnet, told.public_ip, told.backend_data),
            (lease.subnet6, told.public_ip6, told.backend_data6),
        ):
            if subnet is None or subnet.version not in wanted:
                continue
            if public_ip is None:
                peers.problems.append(
                    f"{subnet}: its holder publishes no IPv{subnet.version} address"
                )
            else:
                yield Peer(subnet, public_ip, told.backend_type, data)


def _shared(peers: Iterable[Peer]) -> Iterator[str]:
    holders: dict[AnyAddress, list[AnyNetwork]] = defaultdict(list)
    for peer in peers:
        holders[peer.public_ip].append(peer.subnet)
    for address, subnets in holders.items():
        if len(subnets) > 1:
            yield (
                f"{', '.join(map(str, subnets))}: all of {address}: at most one node has it;"
                " give each node its own with --iface or --public-ip"
            )

"""What a planner needs of the other nodes: their leases, one family at a time, checked.

Nothing that is published is taken on trust: a subnet outside the network, or one that the underlay
is in, would take over routes of the node; an address that is nobody's leads nowhere.  What cannot
be used is named with its holder, and never keeps another peer from being used: of two that want the
same addresses the older one has them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flanneld import addresses
from flanneld.lease import is_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flanneld.backend.base import External
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.lease import Lease


class Unusable(ValueError):
    """A peer cannot be reached as it publishes; ``str`` says why, not whom."""


class _Odd(ValueError):
    """A lease that is no peer's of this network; ``str`` says why, not whose."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One family of a peer's lease. ``data`` is the backend data of that family.

    ``macs`` are those that the lease names, in whatever family; ``since`` is the lease's.
    """

    subnet: AnyNetwork
    public_ip: AnyAddress
    backend_type: str
    data: Mapping[str, Any] | None
    macs: frozenset[str] = frozenset()
    since: int = 0

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
    by_version: dict[int, AnyNetwork] = {network.version: network for network in networks}
    judge, land = _Judge(own, external), _Land(by_version)
    for peer in sorted(_families(leases, by_version, peers), key=_age):
        try:
            judge.check(peer, by_version[peer.subnet.version])
            land.take(peer)
            peers.usable.append(peer)
        except _Odd as error:
            peers.warnings.append(f"{peer}: {error}")
        except Unusable as error:
            peers.problems.append(f"{peer}: {error}")
    peers.usable.sort(key=_order)
    peers.warnings += _around(external, by_version.values())
    peers.warnings += _shared(peers.usable)
    return peers


def _age(peer: Peer) -> tuple[int, tuple[int, AnyNetwork, AnyAddress]]:
    return peer.since, _order(peer)


def _order(peer: Peer) -> tuple[int, AnyNetwork, AnyAddress]:
    return peer.subnet.version, peer.subnet, peer.public_ip


def _families(leases: Iterable[Lease], versions: Iterable[int], peers: Peers) -> Iterator[Peer]:
    """Take leases apart; those without an address in a family of theirs are named."""
    wanted = set(versions)
    for lease in leases:
        told = lease.attributes
        macs = told.macs
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
                yield Peer(subnet, public_ip, told.backend_type, data, macs, lease.since)


class _Judge:
    """Judges a peer by itself, from where this node is."""

    def __init__(self, own: Lease, external: External) -> None:
        self._subnets = {subnet.version: subnet for subnet in own.subnets}
        self._macs = own.attributes.macs
        self._external = external
        told = (external.public_ip, external.public_ip6, external.address, external.address6)
        self._ours = {address for address in told if address} | {*external.local}

    def check(self, peer: Peer, network: AnyNetwork) -> None:
        """Unusable or _Odd if it cannot be reached."""
        if not is_part(peer.subnet, network):
            raise _Odd(
                f"it lies outside the network {network}, or is more than a quarter of it; not"
                " programmed"
            )
        if peer.public_ip in self._ours:
            raise self._same_address(peer)
        if fault := addresses.fault(peer.public_ip, self._external.onlink):
            raise Unusable(f"its public address {fault}")
        own = self._subnets.get(peer.subnet.version)
        if own is not None and peer.subnet.overlaps(own):
            raise Unusable(f"it overlaps this node's own subnet {own}")
        if own is not None and peer.public_ip in own:
            raise Unusable(f"its public address lies in this node's own subnet {own}")
        for prefix in self._external.reserved:
            if prefix.version == peer.subnet.version and prefix.overlaps(peer.subnet):
                raise Unusable(
                    f"{prefix} of this node's underlay lies in it, and would not be reached any"
                    " more: delete that lease, and choose a Network that the nodes are not in"
                )
        if any(address in peer.subnet for address in self._ours):
            raise Unusable("an address of this node lies in it")

    def _same_address(self, peer: Peer) -> ValueError:
        if peer.macs & self._macs or peer.subnet in self._subnets.values():
            return _Odd(
                "that is this node's own public address: a lease of its own, from before; not"
                " programmed"
            )
        return Unusable(
            "that is an address of this node: another node publishes it too, or did before. Give"
            " each its own with --iface or --public-ip, and delete the lease that is wrong"
        )


class _Land:
    """Who has which addresses: subnets that do not overlap, and nobody's address in another's."""

    def __init__(self, networks: Mapping[int, AnyNetwork]) -> None:
        self._networks = networks
        self._starts: list[tuple[int, int]] = []
        self._holders: list[Peer] = []
        self._inside: list[Peer] = []  # those whose address lies in the network

    def take(self, peer: Peer) -> None:
        """Give a peer its subnet; Unusable if that is not free any more."""
        subnet, address = peer.subnet, peer.public_ip
        holder = self._at(subnet.version, int(subnet.broadcast_address))
        if holder is not None and holder.subnet.overlaps(subnet):
            shares = "publishes the same subnet" if holder.subnet == subnet else "overlaps it"
            raise Unusable(
                f"{holder} {shares}, and is the older lease; that one is programmed. Delete the"
                " wrong lease"
            )
        for other in self._inside:
            if other.public_ip in subnet:
                raise Unusable(f"the public address of {other} lies in it")
        if address in self._networks[subnet.version]:
            holder = self._at(address.version, int(address))
            if address in subnet or (holder is not None and address in holder.subnet):
                raise Unusable("its public address lies in a node's subnet")
            self._inside.append(peer)
        start = subnet.version, int(subnet.network_address)
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._holders.insert(at, peer)

    def _at(self, version: int, address: int) -> Peer | None:
        """Find the holder of the last subnet that begins at an address or below."""
        at = bisect_right(self._starts, (version, address)) - 1
        return self._holders[at] if at >= 0 else None


def _around(external: External, networks: Iterable[AnyNetwork]) -> Iterator[str]:
    """Warn of a network that the underlay is in."""
    for network in networks:
        within = [str(one) for one in external.reserved if one.version == network.version]
        if within:
            yield (
                f"the network {network} overlaps this node's underlay: {', '.join(within)}. Subnets"
                " there are not leased, and not programmed: choose another Network"
            )


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

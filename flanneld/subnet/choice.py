"""Which subnet a node asks for: leases in, one lease out.

The order is the Go daemon's (pkg/subnet/etcd, tryAcquireLease): the lease that is this node's, the
subnet of its last run, a free one.  Pure, but for the dice it is given.
"""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain, islice
from typing import TYPE_CHECKING

from flanneld.lease import Lease, is_part
from flanneld.subnet.manager import Exhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from random import Random

    from flanneld.config import NetConf, Network, Pool
    from flanneld.desired import AnyNetwork

CANDIDATES = 100  # of which one is drawn, so that nodes that start together rarely collide


def fits(lease: Lease, conf: NetConf, avoid: Iterable[AnyNetwork] = ()) -> bool:
    """Whether a lease has the families, lengths and range that the configuration wants.

    And no part of what is to be avoided.
    """
    if any(map(lease.overlaps, avoid)):
        return False
    return _fits(lease.subnet, conf.pool) and _fits(lease.subnet6, conf.pool6)


def _fits(subnet: Network | None, pool: Pool[Network] | None) -> bool:
    if subnet is None or pool is None:
        return subnet is None and pool is None
    return pool.holds(subnet)


def reusable(
    previous: Lease | None, leases: Iterable[Lease], conf: NetConf, avoid: Iterable[AnyNetwork] = ()
) -> Lease | None:
    """Give the last run's subnets if they fit and no lease overlaps them."""
    if previous is None or not fits(previous, conf, avoid):
        return None
    taken = any(map(previous.overlaps, _taken(leases, conf)))
    return None if taken else Lease(previous.subnet, previous.subnet6)


def _taken(leases: Iterable[Lease], conf: NetConf) -> Iterator[AnyNetwork]:
    """Give the subnets that can be a node's; others are nobody's, and keep nobody out."""
    networks = {net.version: net for net in (conf.network, conf.network6) if net is not None}
    for subnet in chain.from_iterable(lease.subnets for lease in leases):
        network = networks.get(subnet.version)
        if network is not None and is_part(subnet, network):
            yield subnet


def first_free(leases: Iterable[Lease], conf: NetConf, avoid: Iterable[AnyNetwork] = ()) -> Lease:
    """Give the free subnets with the lowest addresses; Exhausted if there are none."""
    return _free(list(leases), conf, 1, None, avoid)


def any_free(
    leases: Iterable[Lease], conf: NetConf, dice: Random, avoid: Iterable[AnyNetwork] = ()
) -> Lease:
    """Draw from the first free subnets, of each family by itself; Exhausted if there are none."""
    return _free(list(leases), conf, CANDIDATES, dice, avoid)


def _free(
    leases: list[Lease],
    conf: NetConf,
    count: int,
    dice: Random | None,
    avoid: Iterable[AnyNetwork],
) -> Lease:
    holders = (ip_network(ip) for lease in leases for ip in lease.attributes.public_ips)
    taken = [*_taken(leases, conf), *avoid, *holders]
    return Lease(
        _pick(conf.pool, [net for net in taken if isinstance(net, IPv4Network)], count, dice),
        _pick(conf.pool6, [net for net in taken if isinstance(net, IPv6Network)], count, dice),
    )


def _pick(
    pool: Pool[Network] | None, taken: list[Network], count: int, dice: Random | None
) -> Network | None:
    if pool is None:
        return None
    candidates = list(islice(_untaken(pool, taken), count))
    if not candidates:
        inside = sum(map(pool.network.overlaps, taken))
        raise Exhausted(
            f"out of subnets: {inside} leases, or the underlay, fill {pool.network} from"
            f" {pool.first} to {pool.last}; widen the network, or lengthen its SubnetLen"
        )
    return dice.choice(candidates) if dice else candidates[0]


def _untaken(pool: Pool[Network], taken: list[Network]) -> Iterator[Network]:
    """Walk the pool upwards, past every subnet that overlaps a taken one of whatever length."""
    spans = _spans(taken)
    starts = [start for start, _ in spans]
    step = 1 << (pool.network.max_prefixlen - pool.length)
    at, last = int(pool.first.network_address), int(pool.last.network_address)
    make = type(pool.network)
    while at <= last:
        before = bisect_right(starts, at + step - 1) - 1
        if before >= 0 and spans[before][1] >= at:
            at = (spans[before][1] // step + 1) * step
            continue
        yield make((at, pool.length))
        at += step


def _spans(taken: Iterable[Network]) -> list[tuple[int, int]]:
    """First and last addresses as numbers, in order, those that touch or nest made one."""
    spans: list[tuple[int, int]] = []
    for subnet in sorted(taken, key=lambda subnet: int(subnet.network_address)):
        start, end = int(subnet.network_address), int(subnet.broadcast_address)
        if spans and start <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans

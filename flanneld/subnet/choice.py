"""Which subnet a node asks for: leases in, one lease out.

The order is the Go daemon's (pkg/subnet/etcd, tryAcquireLease): the lease that names this node's
public address, the subnet of its last run, a free one.  Pure, but for the dice it is given.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING

from flanneld.lease import Lease
from flanneld.subnet.manager import Exhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from random import Random

    from flanneld.config import NetConf, Network, Pool
    from flanneld.lease import Attributes

CANDIDATES = 100  # of which one is drawn, so that nodes that start together rarely collide


def is_own(lease: Lease, attributes: Attributes) -> bool:
    """Whether a lease is held by the node that publishes these attributes: the address decides.

    Where a network has no IPv4, its nodes are told apart by their IPv6 addresses.
    """
    if attributes.public_ip is not None:
        return lease.attributes.public_ip == attributes.public_ip
    return (
        attributes.public_ip6 is not None and lease.attributes.public_ip6 == attributes.public_ip6
    )


def fits(lease: Lease, conf: NetConf) -> bool:
    """Whether a lease has the families, lengths and range that the configuration wants."""
    return _fits(lease.subnet, conf.pool) and _fits(lease.subnet6, conf.pool6)


def _fits(subnet: Network | None, pool: Pool[Network] | None) -> bool:
    if subnet is None or pool is None:
        return subnet is None and pool is None
    return pool.holds(subnet)


def reusable(previous: Lease | None, leases: Iterable[Lease], conf: NetConf) -> Lease | None:
    """Give the last run's subnets if they fit and no lease overlaps them."""
    if previous is None or not fits(previous, conf):
        return None
    taken = any(_overlap(previous, lease) for lease in leases)
    return None if taken else Lease(previous.subnet, previous.subnet6)


def _overlap(one: Lease, other: Lease) -> bool:
    return bool(
        (one.subnet and other.subnet and one.subnet.overlaps(other.subnet))
        or (one.subnet6 and other.subnet6 and one.subnet6.overlaps(other.subnet6))
    )


def first_free(leases: Iterable[Lease], conf: NetConf) -> Lease:
    """Give the free subnets with the lowest addresses; Exhausted if there are none."""
    return _free(list(leases), conf, 1, None)


def any_free(leases: Iterable[Lease], conf: NetConf, dice: Random) -> Lease:
    """Draw from the first free subnets, of each family by itself; Exhausted if there are none."""
    return _free(list(leases), conf, CANDIDATES, dice)


def _free(leases: list[Lease], conf: NetConf, count: int, dice: Random | None) -> Lease:
    return Lease(
        _pick(conf.pool, [lease.subnet for lease in leases if lease.subnet], count, dice),
        _pick(conf.pool6, [lease.subnet6 for lease in leases if lease.subnet6], count, dice),
    )


def _pick(
    pool: Pool[Network] | None, taken: list[Network], count: int, dice: Random | None
) -> Network | None:
    if pool is None:
        return None
    candidates = list(islice(_untaken(pool, taken), count))
    if not candidates:
        raise Exhausted(
            f"out of subnets: {len(taken)} leases fill {pool.network} from {pool.first} to"
            f" {pool.last}; widen the network, or lengthen its SubnetLen"
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

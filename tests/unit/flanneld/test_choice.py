"""Which subnet is chosen: held against a plain walk over all subnets of small networks."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld.config import parse
from flanneld.lease import Attributes, Lease
from flanneld.subnet import choice
from flanneld.subnet.manager import Exhausted

if TYPE_CHECKING:
    import random

    from flanneld.config import NetConf

NETWORK = IPv4Network("10.0.0.0/22")
SUBNETS = st.integers(24, 30).flatmap(
    lambda length: st.sampled_from(list(NETWORK.subnets(new_prefix=length)))
)


def conf(length: int = 26, **fields: object) -> NetConf:
    return parse(json.dumps({"Network": str(NETWORK), "SubnetLen": length, **fields}))


def leases(*subnets: IPv4Network) -> list[Lease]:
    return [Lease(subnet, None) for subnet in subnets]


def plain(taken: list[IPv4Network], length: int) -> list[IPv4Network]:
    """All free subnets, the slow and obvious way; the first one is never used."""
    return [
        subnet
        for subnet in islice(NETWORK.subnets(new_prefix=length), 1, None)
        if not any(subnet.overlaps(other) for other in taken)
    ]


@given(st.lists(SUBNETS), st.integers(24, 30))
def test_the_first_free_one(taken: list[IPv4Network], length: int) -> None:
    free = plain(taken, length)
    if free:
        assert choice.first_free(leases(*taken), conf(length)).subnet == free[0]
    else:
        with pytest.raises(Exhausted, match="out of subnets"):
            choice.first_free(leases(*taken), conf(length))


@given(st.lists(SUBNETS, max_size=5), st.randoms(use_true_random=False))
def test_one_of_the_first_hundred(taken: list[IPv4Network], dice: random.Random) -> None:
    free = plain(taken, 30)[: choice.CANDIDATES]
    if free:
        assert choice.any_free(leases(*taken), conf(30), dice).subnet in free


@given(SUBNETS, st.lists(SUBNETS, max_size=4))
def test_the_last_run_s_subnet(previous: IPv4Network, taken: list[IPv4Network]) -> None:
    found = choice.reusable(Lease(previous, None), leases(*taken), conf())
    good = previous in plain(taken, 26)
    assert (found is not None) == good


def test_families_are_chosen_each_by_itself() -> None:
    both = conf(EnableIPv6=True, IPv6Network="fd00::/48")
    taken = [
        Lease(IPv4Network("10.0.0.64/26"), IPv6Network("fd00:0:0:9::/64")),
        Lease(IPv4Network("10.0.0.128/26"), IPv6Network("fd00:0:0:1::/64")),
    ]
    found = choice.first_free(taken, both)
    assert found == Lease(IPv4Network("10.0.0.192/26"), IPv6Network("fd00:0:0:2::/64"))


@pytest.mark.parametrize(
    ("lease", "good"),
    [
        (Lease(IPv4Network("10.0.1.0/26"), None), True),
        (Lease(IPv4Network("10.0.1.0/25"), None), False),
        (Lease(IPv4Network("10.0.0.0/26"), None), False),
        (Lease(IPv4Network("10.9.1.0/26"), None), False),
        (Lease(None, IPv6Network("fd00:0:0:1::/64")), False),
        (Lease(IPv4Network("10.0.1.0/26"), IPv6Network("fd00:0:0:1::/64")), False),
    ],
)
def test_what_fits(lease: Lease, good: bool) -> None:  # noqa: FBT001 - a case table's column
    assert choice.fits(lease, conf()) is good


def test_a_subnet_inside_a_longer_one_does_not_end_it() -> None:
    taken = leases(IPv4Network("10.0.0.0/24"), IPv4Network("10.0.0.64/26"))
    assert choice.first_free(taken, conf()).subnet == IPv4Network("10.0.1.0/26")


@pytest.mark.parametrize("wide", ["0.0.0.0/1", "10.0.0.0/8", "10.0.0.0/22", "10.0.0.0/23"])
def test_what_cannot_be_a_node_s_keeps_nobody_out(wide: str) -> None:
    """A network has room for four nodes at least: what is wider than a quarter is no node's."""
    taken = leases(IPv4Network(wide))
    assert choice.first_free(taken, conf()).subnet == IPv4Network("10.0.0.64/26")
    previous = Lease(IPv4Network("10.0.0.128/26"), None)
    assert choice.reusable(previous, taken, conf()) == previous


def test_the_underlay_and_nodes_addresses_are_not_leased() -> None:
    node = Lease(IPv4Network("10.0.1.0/26"), None, Attributes(IPv4Address("10.0.0.130")))
    avoid = (IPv4Network("10.0.0.80/30"), IPv4Network("10.0.0.200/32"))
    found = choice.first_free([node], conf(), avoid)
    assert found.subnet == IPv4Network("10.0.1.64/26")
    assert not choice.fits(Lease(IPv4Network("10.0.0.64/26"), None), conf(), avoid)
    assert choice.fits(Lease(IPv4Network("10.0.0.128/26"), None), conf(), avoid)

"""Which lease is a node's: what is sure, what is likely, and what is another node's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from flanneld.claim import Claim, has_address
from flanneld.lease import Attributes
from tests.unit.flanneld.cluster import identity, lease

OWN = lease(1)
MACS = frozenset({identity(1).mac})
ADDRESS = IPv4Address("192.168.9.1")
MOVED = Attributes(IPv4Address("192.168.9.77"))
VIP = IPv4Address("192.168.9.100")


def test_a_node_is_known_by_its_public_address() -> None:
    both = lease(1, families="46")
    assert has_address(both, Attributes(both.attributes.public_ip))
    assert not has_address(both, replace(both.attributes, public_ip=VIP))
    assert has_address(both, Attributes(None, both.attributes.public_ip6))
    assert not has_address(both, Attributes())


@pytest.mark.parametrize(
    "claim",
    [
        Claim(MOVED, macs=MACS),
        Claim(MOVED, last=OWN),
        Claim(MOVED, previous=OWN, addresses=frozenset({ADDRESS})),
        # A device that was made anew has another MAC than the lease: it is still the node's.
        Claim(
            MOVED, macs=frozenset({identity(5).mac}), previous=OWN, addresses=frozenset({ADDRESS})
        ),
    ],
    ids=["the MAC", "the last run", "subnet.env", "subnet.env, not the MAC"],
)
def test_an_address_that_has_changed_keeps_the_lease(claim: Claim) -> None:
    assert claim.own([lease(2), OWN]) == [OWN]
    assert claim.is_sure(OWN)


@pytest.mark.parametrize(
    "claim",
    [
        Claim(Attributes(ADDRESS), macs=frozenset({identity(2).mac})),
        Claim(Attributes(ADDRESS), macs=frozenset({identity(2).mac}), last=lease(2)),
        Claim(MOVED, previous=OWN),  # somebody else has taken the subnet since
        Claim(MOVED, last=replace(OWN, attributes=MOVED)),
        Claim(Attributes(VIP)),
    ],
)
def test_another_node_s_lease_is_not_taken(claim: Claim) -> None:
    assert claim.own([OWN]) == []


def test_the_address_alone_is_likely_and_no_more() -> None:
    claim = Claim(Attributes(ADDRESS))
    assert claim.own([OWN]) == [OWN]
    assert not claim.is_sure(OWN)


def test_what_is_sure_comes_first() -> None:
    """A node with another's address publishes its own lease, and not theirs."""
    theirs = lease(2, "host-gw", public_ip=VIP)
    mine = lease(1, "host-gw")
    claim = Claim(Attributes(VIP), last=mine)
    assert claim.own([theirs, mine]) == [mine, theirs]

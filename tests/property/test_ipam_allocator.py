"""The allocator: never a reserved address, round robin, exhausted exactly at capacity."""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from cni.cidr import Address, parse_address
from ipam.allocator import candidates, capacity, may_give
from ipam.ranges import read_range, read_set

if TYPE_CHECKING:
    from ipam.ranges import RangeSet

BASES = {4: "10.5.{}.0/26", 6: "fd00:{}::/122"}


@st.composite
def range_sets(draw: st.DrawFn) -> RangeSet:
    """One to three small ranges of one family, with gateways and exclusions anywhere."""
    pattern = BASES[draw(st.sampled_from([4, 6]))]
    ranges = []
    for n in range(draw(st.integers(1, 3))):
        subnet = ipaddress.ip_network(pattern.format(n))
        start = draw(st.integers(0, 60))
        end = draw(st.integers(start, min(start + draw(st.integers(0, 40)), 63)))
        holes = st.lists(
            st.one_of(
                st.sampled_from([str(one) for one in subnet]),
                st.sampled_from([str(one) for one in subnet.subnets(3)]),
            ),
            max_size=4,
        )
        obj: dict[str, Any] = {
            "subnet": str(subnet),
            "rangeStart": str(subnet[start]),
            "rangeEnd": str(subnet[end]),
            "exclude": draw(holes),
        }
        if draw(st.booleans()):
            obj["gateway"] = str(subnet[draw(st.integers(0, 63))])
        ranges.append(read_range(obj))
    return read_set(ranges)


def brute_force(range_set: RangeSet) -> list[Address]:
    """Every address that may be given, in the set's order, by the standard library."""
    gateways = {str(one.gateway) for one in range_set.ranges}
    out = []
    for one in range_set.ranges:
        holes = [ipaddress.ip_network(str(prefix)) for prefix in one.exclude]
        start, end = (ipaddress.ip_address(str(edge)) for edge in (one.start, one.end))
        for value in range(int(start), int(end) + 1):
            address = type(start)(value)
            if str(address) not in gateways and not any(address in hole for hole in holes):
                out.append(parse_address(str(address)))
    return out


def given_by(range_set: RangeSet, last: Address | None = None) -> list[Address]:
    return [address for address, _ in candidates(range_set, last)]


@given(range_sets())
def test_each_address_once_and_none_reserved(range_set: RangeSet) -> None:
    assert given_by(range_set) == brute_force(range_set)
    assert capacity(range_set) == len(brute_force(range_set))


@given(range_sets(), st.data())
def test_round_robin_starts_after_the_last_one(range_set: RangeSet, data: st.DataObject) -> None:
    order = [
        Address(one.family, value)
        for one in range_set.ranges
        for value in range(one.start.value, one.end.value + 1)
    ]
    last = data.draw(st.sampled_from(order))
    cut = order.index(last) + 1
    allowed = set(brute_force(range_set))
    expected = [one for one in order[cut:] + order[:cut] if one in allowed]
    assert given_by(range_set, last) == expected


@given(range_sets(), st.sampled_from(["192.0.2.1", "2001:db8::1"]))
def test_a_last_one_of_elsewhere_is_ignored(range_set: RangeSet, last: str) -> None:
    assert given_by(range_set, parse_address(last)) == given_by(range_set)


@given(range_sets())
def test_may_give_agrees(range_set: RangeSet) -> None:
    allowed = set(brute_force(range_set))
    for one in range_set.ranges:
        subnet = ipaddress.ip_network(str(one.subnet))
        for address in map(parse_address, map(str, subnet)):
            assert may_give(range_set, address) == (address in allowed)


@given(range_sets())
def test_every_address_comes_with_its_range(range_set: RangeSet) -> None:
    for address, one in candidates(range_set, None):
        assert one.contains(address)
        assert range_set.range_of(address) is one


def test_huge_exclusions_cost_nothing() -> None:
    one = read_range({"subnet": "fd00::/32", "exclude": ["fd00::/33", "fd00:0:8000::/34"]})
    found = [str(address) for address, _ in itertools.islice(candidates(read_set([one]), None), 2)]
    assert found == ["fd00:0:c000::", "fd00:0:c000::1"]

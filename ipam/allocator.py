"""Which address next: round robin through a range set, pure.

Values in, candidates out; whether a candidate is free is the store's business. Starts after the
last reserved address, goes through the ranges in order, wraps, and ends at the last reserved
one. Never gives a gateway of the set or an excluded address. The cost depends on how many
spans the exclusions cut out, not on how many addresses they cover.
"""

from __future__ import annotations

from cni.cidr import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.ranges import Range, RangeSet

    Span = tuple[int, int, Range]  # first and last value, both included


def spans(range_set: RangeSet) -> list[Span]:
    """Cut gateways and exclusions out of the ranges; what is left, in the set's order."""
    gateways = {one.value for one in range_set.gateways if one.family == range_set.family}
    left: list[Span] = []
    for one in range_set.ranges:
        holes = [(value, value) for value in gateways]
        holes += [
            (prefix.first.value, prefix.last.value)
            for prefix in one.exclude
            if prefix.family == one.family
        ]
        begin = one.start.value
        for low, high in sorted(holes):
            if high < begin or low > one.end.value:
                continue
            if begin < low:
                left.append((begin, low - 1, one))
            begin = high + 1
        if begin <= one.end.value:
            left.append((begin, one.end.value, one))
    return left


def capacity(range_set: RangeSet) -> int:
    """How many addresses the set can hand out in all."""
    return sum(high - low + 1 for low, high, _ in spans(range_set))


def may_give(range_set: RangeSet, address: Address) -> bool:
    """Whether the set hands this address out at all."""
    return address.family == range_set.family and any(
        low <= address.value <= high for low, high, _ in spans(range_set)
    )


def candidates(range_set: RangeSet, last: Address | None) -> Iterator[tuple[Address, Range]]:
    """Give every address of the set once, the one after `last` first and `last` itself last.

    Without `last`, or when it lies outside the set, from the beginning.
    """
    family = range_set.family
    for low, high, one in _rotated(spans(range_set), range_set, last):
        for value in range(low, high + 1):
            yield Address(family, value), one


def _rotated(left: list[Span], range_set: RangeSet, last: Address | None) -> list[Span]:
    """Turn the list of spans so that it begins right after `last`."""
    home = range_set.range_of(last) if last is not None else None
    if home is None or last is None:
        return left
    rank = range_set.ranges.index
    before: list[Span] = []
    after: list[Span] = []
    for low, high, one in left:
        if one is not home:
            (after if rank(one) > rank(home) else before).append((low, high, one))
            continue
        if low <= last.value:
            before.append((low, min(high, last.value), one))
        if high > last.value:
            after.append((max(low, last.value + 1), high, one))
    return after + before

"""Ranges of addresses and sets of them: reading, defaults, checks.

A conf names range sets; each set gives an attachment one address. The checks, their order and
their wording follow the reference plugin's `Range.Canonicalize` and `RangeSet.Canonicalize`, but
for subnets of one or two addresses, which are for point-to-point links (RFC 3021, RFC 6164).
Pure: knows neither files nor leases. ValueError says what is wrong; the caller says where.
"""

from __future__ import annotations

from cni.cidr import Prefix, parse_address, parse_prefix
from cni.wire import canonical, dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.cidr import Address

KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway", "exclude")
_BITS = {4: 32, 6: 128}


class Range:
    """The addresses from `start` to `end`, both included, of one subnet.

    `gateway` and the addresses in `exclude` are never handed out. `gateway` is None in a subnet of
    one address whose conf names none.
    """

    __slots__ = ("end", "exclude", "gateway", "start", "subnet")

    def __init__(
        self,
        subnet: Prefix,
        start: Address,
        end: Address,
        gateway: Address | None,
        exclude: tuple[Prefix, ...] = (),
    ) -> None:
        self.subnet = subnet
        self.start = start
        self.end = end
        self.gateway = gateway
        self.exclude = exclude

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.subnet.address.family

    def contains(self, address: Address) -> bool:
        """Whether the address lies in the range; excluded ones and the gateway do."""
        return (
            address.family == self.subnet.address.family
            and self.start.value <= address.value <= self.end.value
        )

    def overlaps(self, other: Range) -> bool:
        """Whether some address lies in both."""
        return (
            self.family == other.family
            and self.start.value <= other.end.value
            and other.start.value <= self.end.value
        )

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


class RangeSet:
    """Ranges of one family, tried in order; at least one.

    `gateways` are never given: the ranges' own, and those that other sets of the conf add.
    """

    __slots__ = ("gateways", "ranges")

    def __init__(self, ranges: list[Range]) -> None:
        self.ranges = ranges
        self.gateways = {one.gateway for one in ranges if one.gateway is not None}

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.ranges[0].family

    def range_of(self, address: Address) -> Range | None:
        """Return the range that holds the address."""
        for candidate in self.ranges:
            if candidate.contains(address):
                return candidate
        return None

    def overlaps(self, other: RangeSet) -> bool:
        """Whether some address lies in both."""
        return any(one.overlaps(two) for one in self.ranges for two in other.ranges)

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.ranges)


def read_range(obj: Any, exclude: tuple[Prefix, ...] = ()) -> Range:
    """Read one `{"subnet", "rangeStart", "rangeEnd", "gateway", "exclude"}`; ValueError."""
    if not isinstance(obj, dict):
        raise _mistake(f"a range is an object, not {dumps(obj)}")
    obj = canonical(obj, KEYS)
    subnet = _subnet(obj)
    first = subnet.address
    room = _BITS[subnet.family] - subnet.length  # bits; with less than two none is the subnet's own
    gateway = _address(obj, "gateway") or (first.succ() if room else None)
    if gateway is not None and gateway.family != subnet.family:
        raise _mistake(f"gateway {gateway} is not of the family of {subnet}")
    start = _address(obj, "rangeStart")
    if start is None:
        start = first.succ() if room > 1 else first
    elif not subnet.contains(start):
        raise _mistake(f"RangeStart {start} not in network {subnet}")
    end = _address(obj, "rangeEnd")
    if end is None:
        end = subnet.last.pred() if subnet.family == 4 and room > 1 else subnet.last
    elif not subnet.contains(end) or end < start:
        raise _mistake(f"RangeEnd {end} not in network {subnet}{_before(start, end)}")
    if end < start:
        raise _mistake(f"RangeStart {start} not in network {subnet}{_before(start, end)}")
    return Range(subnet, start, end, gateway, exclude + read_exclude(obj))


def read_set(ranges: list[Range]) -> RangeSet:
    """Make a set of ranges that agree; ValueError when they do not."""
    if not ranges:
        raise _mistake("empty range set")
    for index, one in enumerate(ranges):
        if one.family != ranges[0].family:
            raise _mistake("mixed address families")
        for other in ranges[index + 1 :]:
            if one.overlaps(other):
                raise _mistake(f"subnets {one} and {other} overlap")
    return RangeSet(ranges)


def read_exclude(obj: dict[str, Any]) -> tuple[Prefix, ...]:
    """Read `exclude`, a list of addresses or CIDRs; ValueError."""
    value = obj.get("exclude")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _mistake(f"exclude {dumps(value)} is not a list of addresses or CIDRs")
    return tuple(_excluded(text) for text in value)


def _excluded(text: Any) -> Prefix:
    if not isinstance(text, str):
        raise _mistake(f"exclude holds {dumps(text)}, which is neither an address nor a CIDR")
    if "/" in text:
        return parse_prefix(text).network
    address = parse_address(text)
    return Prefix(address, _BITS[address.family])


def _subnet(obj: dict[str, Any]) -> Prefix:
    """Read `subnet`, which has no host bits."""
    value = obj.get("subnet")
    if value is None:
        raise _mistake(f"the range {dumps(obj)} has no subnet")
    if not isinstance(value, str):
        raise _mistake(f"subnet {dumps(value)} is not a string")
    subnet = parse_prefix(value)
    if subnet.first != subnet.address:
        raise _mistake(
            "Network has host bits set. For a subnet mask of length "
            f"{subnet.length} the network address is {subnet.first}"
        )
    return subnet


def _address(obj: dict[str, Any], key: str) -> Address | None:
    """Read an address; absent and empty are the same, as for Go's net.IP."""
    value = obj.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _mistake(f"{key} {dumps(value)} is not a string")
    try:
        return parse_address(value)
    except ValueError as error:
        raise _mistake(f"{key}: {error}") from None


def _before(start: Address, end: Address) -> str:
    return f" (RangeEnd {end} lies before RangeStart {start})" if end < start else ""


def _mistake(text: str) -> ValueError:
    """Make the one exception of this module: wrong types are wrong values of a conf."""
    return ValueError(text)

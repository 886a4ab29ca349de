"""What nft's JSON compares a packet with, as conditions.  Pure.

What is not read of it becomes a condition of which nothing is known.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING, Any

from flanneld.firewall import packet as on
from flanneld.firewall.spelling import expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flanneld.desired import AnyNetwork
    from flanneld.firewall.packet import Condition

    Sets = Mapping[str, list[Any]]

_IP = {"ip": 4, "ip6": 6}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", "ipv6-icmp": "icmpv6"}


def matches(sets: Sets, value: dict[str, Any]) -> list[Condition]:
    """Read a match: ``sets`` are the elements of the table's named sets."""
    found = compared(sets, value["left"], value["right"])
    if value.get("op") in {"==", "in"}:
        return found
    if value.get("op") == "!=":
        return [*found[:-1], on.negated(found[-1])]
    return [*found[:-1], on.unknown]


def compared(sets: Sets, left: Any, right: Any) -> list[Condition]:
    """Read a comparison: what must hold for it to be asked at all, then itself."""
    if right == "*":
        return [on.all_of(())]
    match left, right:
        case {"concat": list() as lefts}, {"concat": list() as rights}:
            return [
                condition
                for one, other in zip(lefts, rights, strict=True)
                for condition in compared(sets, one, other)
            ]
        case _, {"elem": {"val": value}}:
            return compared(sets, left, value)
        case _, {"set": list() as elements}:
            return [*_asked(left), _one_of(sets, left, elements)]
        case _, list() as elements:
            return [*_asked(left), _one_of(sets, left, elements)]
        case _, str() as name if name[1:] in sets and name[0] == "@":
            return [*_asked(left), _one_of(sets, left, sets[name[1:]])]
        case _:
            return [*_asked(left), _single(left, right)]


def _one_of(sets: Sets, left: Any, elements: Iterable[Any]) -> Condition:
    return on.any_of(on.all_of(compared(sets, left, element)) for element in elements)


def _asked(left: Any) -> list[Condition]:
    """Say which packets have such a field at all."""
    match left:
        case {"payload": {"protocol": "ip" | "ip6" as ip}}:
            return [on.of_version(_IP[ip])]
        case {"payload": {"protocol": "udp" | "tcp" | "sctp" | "icmp" | "icmpv6" as protocol}}:
            return [on.of_protocol(protocol)]
        case {"&": [inner, int()]}:
            return _asked(inner)
        case _:
            return []


def _single(left: Any, right: Any) -> Condition:
    """Read a comparison with one value."""
    try:
        match left:
            case {"&": [inner, int() as mask]} if isinstance(right, int):
                is_mark = expression(inner) == "meta mark"
                return on.marked(right, mask) if is_mark else on.unknown
            case _:
                return _FIELDS.get(expression(left), _not_read)(right)
    except ValueError:
        return on.unknown


def _not_read(_: Any) -> Condition:
    return on.unknown


def _protocol(right: Any) -> Condition:
    return on.of_protocol(_PROTOCOLS.get(right, str(right)))


def _version(right: Any) -> Condition:
    versions = {"ip": 4, "ipv4": 4, "ip6": 6, "ipv6": 6}
    return on.of_version(versions[right]) if right in versions else on.never


def _mark_is(right: Any) -> Condition:
    return on.marked(right, 0xFFFFFFFF) if isinstance(right, int) else on.unknown


def _translated(right: Any) -> Condition:
    return on.never if right in {"dnat", "snat"} else on.unknown


def _cast(right: Any) -> Condition:
    return on.never if right in {"broadcast", "multicast"} else on.unknown


def _kind(local: Condition) -> Callable[[Any], Condition]:
    kinds = {"local": local, "unicast": on.negated(local)}
    return lambda right: kinds.get(right, on.never)


def _networks(side: Callable[[AnyNetwork], Condition]) -> Callable[[Any], Condition]:
    def read(right: Any) -> Condition:
        match right:
            case {"prefix": {"addr": str() as base, "len": int() as length}}:
                return side(ip_network(f"{base}/{length}"))
            case {"range": [str() as first, str() as last]}:
                found = summarize_address_range(ip_address(first), ip_address(last))
                return on.any_of(map(side, found))
            case _:
                return side(ip_network(str(right)))

    return read


def _ports(make: Callable[[int, int], Condition]) -> Callable[[Any], Condition]:
    def read(right: Any) -> Condition:
        match right:
            case {"range": [int() as first, int() as last]}:
                return make(first, last)
            case int():
                return make(right, right)
            case _:
                return on.unknown

    return read


_FIELDS: dict[str, Callable[[Any], Condition]] = {
    "iif": on.comes_in,
    "iifname": on.comes_in,
    "oif": on.goes_out,
    "oifname": on.goes_out,
    "meta l4proto": _protocol,
    "ip protocol": _protocol,
    "ip6 nexthdr": _protocol,
    "meta nfproto": _version,
    "meta protocol": _version,
    "meta pkttype": _cast,
    "meta mark": _mark_is,
    "ct state": lambda right: on.in_state([str(right)]),
    "ct status": _translated,
    "fib daddr type": _kind(on.to_host),
    "fib saddr type": _kind(on.from_host),
    **{f"{ip} saddr": _networks(on.source) for ip in _IP},
    **{f"{ip} daddr": _networks(on.target) for ip in _IP},
    **{f"{protocol} dport": _ports(on.to_ports) for protocol in ("tcp", "udp", "th")},
    **{f"{protocol} sport": _ports(on.from_ports) for protocol in ("tcp", "udp", "th")},
}

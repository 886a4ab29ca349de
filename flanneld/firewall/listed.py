"""What ``nft -j list table`` printed, as chains.  Pure.

The JSON is that of libnftables-json(5).  What is not read of it makes its rule one of which is not
known whom it meets, or what it does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING, Any

from flanneld.firewall import packet as on
from flanneld.firewall.chains import Base, Rule, Table
from flanneld.firewall.spelling import expression, spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flanneld.desired import AnyNetwork
    from flanneld.firewall.chains import Act
    from flanneld.firewall.packet import Condition

_VERSIONS = {"ip": {4}, "ip6": {6}, "inet": {4, 6}, "netdev": {4, 6}, "bridge": {4, 6}}
_VERDICTS: dict[str, Act] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "drop",
    "return": "return",
    "jump": "jump",
    "goto": "goto",
    "continue": "go on",
    "dnat": "translate",
    "snat": "translate",
    "masquerade": "translate",
    "redirect": "translate",
    "queue": "unknown",
    "tproxy": "unknown",
    "xt": "unknown",
}
_SILENT = {"counter", "log", "notrack", "set", "ct helper", "ct timeout", "flow", "last", "map"}
_LONGEST = 300  # characters of a rule: a set can have a million elements
_IP = {"ip": 4, "ip6": 6}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", "ipv6-icmp": "icmpv6"}


@dataclass(slots=True)
class _Reading:
    family: str
    name: str
    sets: dict[str, list[Any]] = field(default_factory=dict)


def tables_with_hooks(printed: str) -> list[tuple[str, str]]:
    """Read ``nft -j list chains``: (family, name) of each table that the kernel asks."""
    chains = [entry["chain"] for entry in json.loads(printed)["nftables"] if "chain" in entry]
    found = ((chain["family"], chain["table"]) for chain in chains if "hook" in chain)
    return [one for one in dict.fromkeys(found) if one[0] in _VERSIONS]


def table(family: str, name: str, printed: str) -> Table:
    """Read one table; ValueError, LookupError, TypeError if this is not what nft prints."""
    entries = json.loads(printed)["nftables"]
    reading = _Reading(family, name)
    bases: list[Base] = []
    chains: dict[str, list[Rule]] = {}
    for entry in entries:
        (kind, value), *_ = entry.items()
        if kind in {"set", "map"}:
            reading.sets[value["name"]] = value.get("elem", [])
        elif kind == "chain":
            chains[value["name"]] = []
            if "hook" in value:
                bases.append(_base(family, value))
    for entry in entries:
        if "rule" in entry:
            rule = entry["rule"]
            chains[rule["chain"]] += _rules(reading, rule)
    rules = {chain: tuple(found) for chain, found in chains.items()}
    versions = frozenset(_VERSIONS[family])
    return Table("nft", f"{family} {name}", versions, rules, tuple(bases), "nft")


def _base(family: str, chain: dict[str, Any]) -> Base:
    hook = chain["hook"]
    device = chain.get("dev", "")
    return Base(
        chain=chain["name"],
        hook=f"bridge {hook}" if family == "bridge" else hook,
        priority=chain.get("prio", 0),
        policy=chain.get("policy", "accept"),
        kind=chain.get("type", "filter"),
        device=device if isinstance(device, str) else "",
    )


def _rules(reading: _Reading, rule: dict[str, Any]) -> Iterator[Rule]:
    """Read a rule: one, or for a map of verdicts one for each of its elements."""
    words = [spelled(statement) for statement in rule["expr"]]
    where = f"{reading.family} {reading.name} {rule['chain']} handle {rule['handle']}"
    text, deletion = " ".join(filter(None, words))[:_LONGEST], f"nft delete rule {where}"
    conditions: list[Condition] = []
    for statement in rule["expr"]:
        (kind, value), *_ = statement.items()
        if kind == "match":
            conditions += _matches(reading, value)
        elif kind == "vmap":
            elements = _elements(reading, value["data"])
            if elements is None:
                yield Rule(text, tuple(conditions), "unknown", deletion=deletion)
                return
            for key, verdict in elements:
                (act, to), *_ = verdict.items()
                chosen = on.all_of(_compared(reading, value["key"], key))
                yield _verdict(act, to, text, [*conditions, chosen], deletion)
        elif kind == "mangle":
            yield Rule(text, tuple(conditions), "mark", mark=_mark(value), deletion=deletion)
        elif kind in _VERDICTS:
            yield _verdict(kind, value, text, conditions, deletion)
            return
        elif kind not in _SILENT:
            conditions.append(on.unknown)


def _verdict(
    kind: str, value: Any, text: str, conditions: Sequence[Condition], deletion: str
) -> Rule:
    act = _VERDICTS.get(kind, "unknown")
    return Rule(
        text=text,
        conditions=tuple(conditions),
        act=act,
        to=value["target"] if act in {"jump", "goto"} else "",
        targets=tuple(_targets(value)) if kind == "dnat" else (),
        deletion=deletion,
    )


def _targets(value: Any) -> Iterator[str]:
    """Spell where a dnat leads: an address, with its port if there is one, or those of a map."""
    match value:
        case {"addr": {"map": {"data": {"set": list() as elements}}}}:
            for _, target in elements:
                yield from _targets({"addr": target})
        case {"addr": str() as address, "port": int() as port}:
            yield f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        case {"addr": {"concat": [str() as address, int() as port]}}:
            yield from _targets({"addr": address, "port": port})
        case {"addr": str() as address}:
            yield address
        case _:  # of another packet's field, which is not known
            return


def _mark(value: Any) -> tuple[int, int] | None:
    """Give the bits that are kept of a mark, and those that are turned then."""
    key = {"meta": {"key": "mark"}}
    match value:
        case {"key": left, "value": int() as bits} if left == key:
            return 0, bits
        case {"key": left, "value": {"|": [other, int() as bits]}} if left == other == key:
            return ~bits & 0xFFFFFFFF, bits
        case {"key": left, "value": {"&": [other, int() as bits]}} if left == other == key:
            return bits, 0
        case {"key": left} if left != key:  # another field than the mark: of no matter here
            return 0xFFFFFFFF, 0
        case _:
            return None


def _elements(reading: _Reading, data: Any) -> list[Any] | None:
    match data:
        case {"set": list() as elements}:
            return elements
        case str() as name if name.startswith("@"):
            return reading.sets.get(name[1:])
        case _:
            return None


# -------------------------------------------------------------------------------------- conditions


def _matches(reading: _Reading, value: dict[str, Any]) -> list[Condition]:
    compared = _compared(reading, value["left"], value["right"])
    if value.get("op") in {"==", "in"}:
        return compared
    if value.get("op") == "!=":
        return [*compared[:-1], on.negated(compared[-1])]
    return [*compared[:-1], on.unknown]


def _compared(reading: _Reading, left: Any, right: Any) -> list[Condition]:
    """Read a comparison: what must hold for it to be asked at all, then itself."""
    if right == "*":
        return [on.all_of(())]
    match left, right:
        case {"concat": list() as lefts}, {"concat": list() as rights}:
            return [
                condition
                for one, other in zip(lefts, rights, strict=True)
                for condition in _compared(reading, one, other)
            ]
        case _, {"elem": {"val": value}}:
            return _compared(reading, left, value)
        case _, {"set": list() as elements}:
            return [*_asked(left), _one_of(reading, left, elements)]
        case _, list() as elements:
            return [*_asked(left), _one_of(reading, left, elements)]
        case _, str() as name if name[1:] in reading.sets and name[0] == "@":
            return [*_asked(left), _one_of(reading, left, reading.sets[name[1:]])]
        case _:
            return [*_asked(left), _single(left, right)]


def _one_of(reading: _Reading, left: Any, elements: Iterable[Any]) -> Condition:
    return on.any_of(on.all_of(_compared(reading, left, element)) for element in elements)


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

"""What ``nft -j list table`` printed, as chains.  Pure.

The JSON is that of libnftables-json(5).  What is not read of it makes its rule one of which is not
known whom it meets, or what it does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flanneld.firewall import packet as on
from flanneld.firewall.chains import Base, Rule, Table
from flanneld.firewall.comparisons import compared, matches
from flanneld.firewall.spelling import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
            conditions += matches(reading.sets, value)
        elif kind == "vmap":
            elements = _elements(reading, value["data"])
            if elements is None:
                yield Rule(text, tuple(conditions), "unknown", deletion=deletion)
                return
            for key, verdict in elements:
                (act, to), *_ = verdict.items()
                chosen = on.all_of(compared(reading.sets, value["key"], key))
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

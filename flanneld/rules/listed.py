"""What ``nft -j list table`` printed, against what should be there.

Pure.  Rules are spelled in nft's own words again, as far as rules of a flannel daemon go; any other
rule becomes its JSON, which is never equal to one of ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from flanneld.rules import texts
from flanneld.rules.ownership import Rule, compared, part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flanneld.desired import AnyNetwork
    from flanneld.rules.texts import BaseChain

_VERDICTS = ("accept", "return")


@dataclass(frozen=True, slots=True)
class Listed:
    """A chain as it is: (type, hook, priority, policy), and its rules."""

    hooked: tuple[Any, ...]
    rules: tuple[Rule, ...]


def parse(printed: str) -> dict[str, Listed]:
    """Read a table's chains by name; ValueError if this is not what nft prints."""
    hooked: dict[str, tuple[Any, ...]] = {}
    rules: dict[str, list[Rule]] = {}
    for entry in json.loads(printed)["nftables"]:
        if "chain" in entry:
            chain = entry["chain"]
            hooked[chain["name"]] = tuple(
                chain.get(key) for key in ("type", "hook", "prio", "policy")
            )
        elif "rule" in entry:
            rules.setdefault(entry["rule"]["chain"], []).append(_spell(entry["rule"]["expr"]))
    return {name: Listed(hooked[name], tuple(rules.get(name, ()))) for name in hooked}


def _spell(expressions: list[dict[str, Any]]) -> Rule:
    words, networks = [], []
    for expression in expressions:
        (kind, value), *_ = expression.items()
        if kind == "match":
            text, network = _match(value)
            networks += [network] if network is not None else []
        elif kind in _VERDICTS and value is None:
            text = kind
        elif kind == "masquerade":
            text = _masquerade(value)
        else:
            text = ""
        if not text:
            return Rule(json.dumps(expressions), (), known=False)
        words.append(text)
    return Rule(" ".join(words), tuple(networks))


def _match(value: dict[str, Any]) -> tuple[str, AnyNetwork | None]:
    """Spell one comparison of an address or the mark; empty if it is of something else."""
    if value.get("op") not in {"==", "!="}:
        return "", None
    differs = "!= " if value["op"] == "!=" else ""
    left, right = value.get("left"), value.get("right")
    match left, right:
        case {"meta": {"key": "mark"}}, int():
            return f"meta mark {differs}{right:#x}", None
        case {"payload": {"protocol": "ip" | "ip6" as ip, "field": "saddr" | "daddr" as side}}, _:
            network = _network(right)
            return (f"{ip} {side} {differs}{network}", network) if network else ("", None)
        case _:
            return "", None


def _network(right: object) -> AnyNetwork | None:
    """Read an address, or a prefix; None for a set, a range, or a name."""
    match right:
        case {"prefix": {"addr": str() as address, "len": int() as length}}:
            return ip_network(f"{address}/{length}")
        case str() if right[:1] != "@":
            return ip_network(right)
        case _:
            return None


def _masquerade(value: object) -> str:
    """Spell the statement; nft prints one flag as a word or as a list of one."""
    match value:
        case None:
            return "masquerade"
        case {"flags": "fully-random" | ["fully-random"], **other} if not other:
            return "masquerade fully-random"
        case _:
            return ""


def faults(
    listed: Mapping[str, Listed],
    wanted: Mapping[BaseChain, Sequence[str]],
    ours: Sequence[AnyNetwork],
) -> list[str]:
    """Say what is wrong with the chains, one sentence each."""
    sentences = []
    for chain in texts.BASE_CHAINS:
        there = listed.get(chain.name)
        rules = wanted.get(chain, ())
        if there is None:
            sentences += [f"chain {chain.name} is missing"] if rules else []
            continue
        own, others = part(there.rules, rules, ours)
        hooked = (chain.type, chain.hook, chain.priority, "accept")
        if not rules and not others:
            sentences.append(f"chain {chain.name} should not be there")
        elif there.hooked != hooked:
            sentences.append(f"chain {chain.name} is {there.hooked}, not {hooked}")
        sentences += compared(f"chain {chain.name}", own, rules)
    return sentences


def replacement(
    chains: Mapping[str, Listed],
    wanted: Mapping[BaseChain, Sequence[str]],
    ours: Sequence[AnyNetwork],
) -> dict[BaseChain, list[str]]:
    """Give what replaces the table: the rules wanted, and another network's behind them."""
    whole = {}
    for chain in texts.BASE_CHAINS:
        there = chains.get(chain.name)
        rules = wanted.get(chain, ())
        _, others = part(there.rules if there else (), rules, ours)
        if rules or others:
            whole[chain] = [*rules, *others]
    return whole

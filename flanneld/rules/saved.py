"""What ``iptables-save`` printed, against what should be there, and the lines that repair it.

Pure.  A chain is compared and written as a whole: its content, order and duplicates, and the jump
to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from flanneld.rules import older, texts
from flanneld.rules.ownership import Rule, compared, part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flanneld.desired import AnyNetwork
    from flanneld.rules.texts import Chain

_SIDES = ("-s", "-d")


@dataclass(frozen=True, slots=True)
class Found:
    """A chain of ours as it is: its rules, and every rule of the table that leads to it."""

    exists: bool
    rules: tuple[Rule, ...]
    jumps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wrong, or what goes; and ``iptables-restore``'s input for that, or nothing."""

    faults: tuple[str, ...]
    text: str


def parse(printed: str) -> dict[str, list[str]]:
    """Part ``iptables-save``'s output by table: the lines of chains (``:``) and rules (``-A``)."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in printed.splitlines():
        if line.startswith("*"):
            lines = parts.setdefault(line[1:].strip(), [])
        elif line.startswith((":", "-A ")):
            lines.append(line.rstrip())
    return parts


def find(chain: Chain, tables: Mapping[str, Sequence[str]]) -> Found:
    """Look a chain of ours up."""
    lines = tables.get(chain.table, ())
    leads = (f" -j {chain.name}", f" -g {chain.name}")
    return Found(
        exists=any(line.startswith(f":{chain.name} ") for line in lines),
        rules=tuple(_spell(line, chain) for line in lines if line.startswith(f"-A {chain.name} ")),
        jumps=tuple(line for line in lines if line.endswith(leads)),
    )


def _spell(text: str, chain: Chain) -> Rule:
    """Read a rule; a mask with gaps, or such a word in a comment, makes it somebody's own."""
    words = text.split()
    try:
        named = [ip_network(words[at + 1]) for at, word in enumerate(words[:-1]) if word in _SIDES]
    except ValueError:
        return Rule(text, (), known=False)
    return Rule(text, tuple(named), known=chain.note in text)


def faults(
    chain: Chain, found: Found, wanted: Sequence[str], ours: Sequence[AnyNetwork]
) -> list[str]:
    """Say what is wrong with the chain, one sentence each; nothing if it is right.

    ``wanted`` are the rules it should have (none: no rule of ours, and no chain without rules).
    """
    own, others = part(found.rules, wanted, ours)
    where = _place(chain)
    if not wanted:
        if others and not own:
            return []
        return [f"{where} should not be there"] if found.exists else []
    if not found.exists:
        return [f"{where} is missing"]
    sentences = compared(where, own, wanted)
    if found.jumps != (chain.jump,):
        listed = "; ".join(found.jumps) or "none"
        sentences.append(f"{where} should be reached by one rule of {chain.base}, not: {listed}")
    return sentences


def repair(
    chain: Chain, found: Found, wanted: Sequence[str], ours: Sequence[AnyNetwork]
) -> list[str]:
    """Write the lines for ``iptables-restore --noflush`` that make the chain right.

    Declaring a chain empties it; nothing of this is seen before all of it is.
    """
    _, others = part(found.rules, wanted, ours)
    if not wanted and not others:
        return removal(chain, found)
    jumps = [] if found.jumps == (chain.jump,) else [*_deleted(found.jumps), chain.jump]
    return [f":{chain.name} - [0:0]", *wanted, *others, *jumps]


def removal(chain: Chain, found: Found) -> list[str]:
    """Write the lines that take the chain away with all that leads to it."""
    if not found.exists:
        return []
    return [f":{chain.name} - [0:0]", *_deleted(found.jumps), f"-X {chain.name}"]


def _deleted(rules: Iterable[str]) -> list[str]:
    return ["-D" + rule[2:] for rule in rules]


def plan(
    tables: Mapping[str, Sequence[str]], traffic: texts.Traffic | None, ours: Sequence[AnyNetwork]
) -> Plan:
    """Say what is wrong with the chains, and write the input that makes them right."""
    sentences: list[str] = []
    lines: dict[str, list[str]] = {}
    for chain in texts.CHAINS:
        found, wanted = find(chain, tables), texts.iptables_rules(traffic, chain)
        wrong = faults(chain, found, wanted, ours)
        if wrong:
            sentences += wrong
            lines[chain.table] = repair(chain, found, wanted, ours)
    for table, line in older.find(tables, ours):
        sentences.append(f"table {table} has a rule of an older flannel: {line}")
        lines.setdefault(table, []).extend(_deleted([line]))
    return Plan(tuple(sentences), _transaction(lines))


def plan_removal(tables: Mapping[str, Sequence[str]], ours: Sequence[AnyNetwork]) -> Plan:
    """Write the input that takes our rules away, and each chain that nobody else has rules in."""
    named = []
    for chain in texts.CHAINS:
        found = find(chain, tables)
        if faults(chain, found, (), ours):
            _, others = part(found.rules, (), ours)
            named.append(f"{'our rules of ' if others else ''}{_place(chain)}")
    named += (f"in table {table}: {line}" for table, line in older.find(tables, ours))
    return Plan(tuple(named), plan(tables, None, ours).text)


def _transaction(lines: Mapping[str, Sequence[str]]) -> str:
    return "".join(
        "\n".join([f"*{table}", *changes, "COMMIT", ""])
        for table, changes in lines.items()
        if changes
    )


def _place(chain: Chain) -> str:
    return f"chain {chain.name} of table {chain.table}"

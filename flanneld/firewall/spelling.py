"""Rules of nft in its own words again, as far as people write them.  Pure.

What libnftables prints as JSON is spelled as ``nft list`` would; what is not known here stays JSON.
"""

from __future__ import annotations

import json
from typing import Any

_SIGNS = {"==": "", "in": ""}
_SHORT = ("iif", "oif", "iifname", "oifname")  # nft needs no "meta" before these


def spelled(statement: Any) -> str:
    """Spell a statement; a counter is nothing."""
    if not isinstance(statement, dict) or len(statement) != 1:
        return json.dumps(statement)
    (word, value), *_ = statement.items()
    if word == "counter":
        return ""
    return _statement(word, value)


def _statement(word: str, value: Any) -> str:
    match word, value:
        case "match", {"op": str() as op, "left": left, "right": right}:
            sign = _SIGNS.get(op, f"{op} ")
            return f"{expression(left)} {sign}{expression(right)}"
        case "vmap", {"key": key, "data": data}:
            return f"{expression(key)} vmap {expression(data)}"
        case "jump" | "goto", {"target": target}:
            return f"{word} {target}"
        case "reject", {"expr": str() as why}:
            return f"reject with {why}"
        case "mangle", {"key": key, "value": new}:
            return f"{expression(key)} set {expression(new)}"
        case _:
            return word if value is None else f"{word} {expression(value)}"


def expression(value: Any) -> str:
    """Spell what a statement compares: ``ip saddr``, ``10.0.0.0/8``, ``{ 1, 2 }``."""
    if isinstance(value, list):
        return ",".join(map(expression, value))
    if not isinstance(value, dict) or len(value) != 1:
        return str(value) if isinstance(value, str | int) else json.dumps(value)
    (kind, inside), *_ = value.items()
    match kind, inside:
        case "set", list():
            return f"{{ {', '.join(map(_element, inside))} }}"
        case "concat", list():
            return " . ".join(map(expression, inside))
        case "range", [first, last]:
            return f"{expression(first)}-{expression(last)}"
        case "&" | "|", [left, right]:
            return f"{expression(left)} {kind} {expression(right)}"
        case _:
            return _field(value, kind, inside)


def _field(value: Any, kind: str, inside: Any) -> str:
    match kind, inside:
        case "meta" | "ct", {"key": key}:
            return str(key) if key in _SHORT else f"{kind} {key}"
        case "payload", {"protocol": protocol, "field": part}:
            return f"{protocol} {part}"
        case "fib", {"result": result, "flags": list() as flags}:
            return f"fib {' . '.join(flags)} {result}"
        case "prefix", {"addr": base, "len": length}:
            return f"{base}/{length}"
        case _:
            return json.dumps(value)


def _element(value: Any) -> str:
    match value:
        case [key, dict() as verdict]:
            return f"{expression(key)} : {spelled(verdict)}"
        case _:
            return expression(value)

"""What a case expects against what was seen: a few matchers, and a sentence for each mismatch.

An expected table asks for its own keys only. An expected list asks for as many items in that order;
a table with `has`, `lacks` or `count` asks the seen list for single items. Some strings are
special: "any" is any value that is there, "absent" a key that is not, "re:..." a regular expression
that is found, "not-re:..." one that is not, "same-as:step1.result.ips.0.address" the value that an
earlier step had there, "not-as:..." another one than that. Everything else is equal, or not.
"""

from __future__ import annotations

import re
from typing import Any

LIST_WORDS = {"has", "lacks", "count"}


def mismatches(expected: Any, seen: Any, earlier: dict[str, Any], path: str = "") -> list[str]:
    """Say in lines `path: expected ..., seen ...` what does not match; [] if all does."""
    if isinstance(expected, dict) and isinstance(seen, list) and set(expected) <= LIST_WORDS:
        return _of_items(expected, seen, earlier, path)
    if isinstance(expected, dict):
        return _of_table(expected, seen, earlier, path)
    if isinstance(expected, list):
        return _of_list(expected, seen, earlier, path)
    if isinstance(expected, str):
        return _of_text(expected, seen, earlier, path)
    if type(expected) is type(seen) and expected == seen:
        return []
    return [f"{path}: expected {expected!r}, seen {_short(seen)}"]


def _of_table(expected: dict[str, Any], seen: Any, earlier: dict[str, Any], path: str) -> list[str]:
    if not isinstance(seen, dict):
        return [f"{path}: expected a table, seen {_short(seen)}"]
    lines = []
    for key, value in expected.items():
        where = f"{path}.{key}" if path else key
        if value == "absent":
            if key in seen:
                lines.append(f"{where}: expected to be absent, seen {_short(seen[key])}")
        elif key not in seen:
            lines.append(f"{where}: expected {value!r}, not there (there is: {', '.join(seen)})")
        else:
            lines += mismatches(value, seen[key], earlier, where)
    return lines


def _of_list(expected: list[Any], seen: Any, earlier: dict[str, Any], path: str) -> list[str]:
    if not isinstance(seen, list) or len(seen) != len(expected):
        return [f"{path}: expected {expected!r}, seen {_short(seen)}"]
    return [
        line
        for position, (one, other) in enumerate(zip(expected, seen, strict=True))
        for line in mismatches(one, other, earlier, f"{path}.{position}")
    ]


def _of_items(
    expected: dict[str, Any], seen: list[Any], earlier: dict[str, Any], path: str
) -> list[str]:
    lines = []
    for item in expected.get("has", []):
        if all(mismatches(item, one, earlier) for one in seen):
            lines += [f"{path}: expected an item {item!r}, seen {_short(seen)}"]
    for item in expected.get("lacks", []):
        found = [one for one in seen if not mismatches(item, one, earlier)]
        lines += [f"{path}: expected no item {item!r}, seen {_short(one)}" for one in found]
    if len(seen) != expected.get("count", len(seen)):
        lines.append(f"{path}: expected {expected['count']} items, seen {_short(seen)}")
    return lines


def _of_text(expected: str, seen: Any, earlier: dict[str, Any], path: str) -> list[str]:
    if expected == "any":
        return []
    word, _, rest = expected.partition(":")
    wanted: Any = expected
    if word == "re":
        if isinstance(seen, str) and re.search(rest, seen, re.MULTILINE):
            return []
    elif word == "not-re":
        if isinstance(seen, str) and not re.search(rest, seen, re.MULTILINE):
            return []
    elif word in {"same-as", "not-as"}:
        wanted = dig(earlier, rest)
        if (wanted == seen) == (word == "same-as"):
            return []
        return [f"{path}: expected {expected} ({wanted!r}), seen {_short(seen)}"]
    elif seen == expected:
        return []
    return [f"{path}: expected {wanted!r}, seen {_short(seen)}"]


def dig(value: Any, path: str) -> Any:
    """Follow `step1.result.ips.0.address`; a KeyError names the path."""
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise KeyError(f"no {part!r} on the way of {path!r}") from None
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}..."

"""JSON that others have written, read within bounds: no value of theirs can end the daemon.

What has been checked can be written again: not too long, not too deep, whole characters, numbers.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_LONGEST = 1 << 16  # bytes of what one node, or one network, says of itself
_DEEPEST = 32
_CUT = 2 * _DEEPEST  # so much is read of what is too deep for json to read
_LONGEST_NUMBER = 1000  # digits
_TOO_DEEP = f"it is nested more than {_DEEPEST} deep"
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)


def load(raw: bytes | str) -> Any:
    """Read one document, checked; ValueError says what is wrong with it."""
    if len(raw) > _LONGEST:
        raise ValueError(f"it has {len(raw)} bytes, more than {_LONGEST}")
    document = parse(raw)
    check(document)
    return document


def parse(raw: bytes | str) -> Any:
    """Read many documents in one, each of which is to be checked; ValueError if that cannot be."""
    text = raw.decode() if isinstance(raw, bytes) else raw
    try:
        return _parse(text)
    except RecursionError:
        return _parse(_cut(text))


def check(document: Any) -> None:
    """ValueError for one too deep, with half a character (a lone surrogate), or with no number."""
    level = [document]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                value.encode()
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("a number in it is out of range")
        if not below:
            return
        level = below
    raise ValueError(_TOO_DEEP)


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_whole)


def _whole(text: str) -> int | float:
    """Read a whole number; Python refuses a very long one, whatever stands around it."""
    return int(text) if len(text) < _LONGEST_NUMBER else math.inf


def _cut(text: str) -> str:
    """Put null in the place of all that is far too deep."""
    kept, at, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in {"[", "{"}:
            depth += 1
            if depth == _CUT:
                kept.append(text[at : token.start()])
        elif token[0] in {"]", "}"}:
            if depth == _CUT:
                kept.append("null")
                at = token.end()
            depth -= 1
    if depth < _CUT:
        kept.append(text[at:])
    return "".join(kept)

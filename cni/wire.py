"""JSON as Go's encoding/json reads and writes it.

The one place that uses the C module under `json`: importing `json` itself costs 6 ms (it pulls
in `re`). On bad input the C scanner of CPython 3.11 raises SystemError or StopIteration, so
every failure is read again by the public module for its message and position.

Differences from Go, on purpose: bytes that are not UTF-8 are refused, not replaced.
Import contract: `_json` here and nowhere else; `json` only after a failure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

_SPACE = " \t\n\r"
_LARGEST = 1e21  # from here Go prints a float with an exponent
_DEPTH = 500  # where to point when the stack (about 990 levels) was not enough


def _number(text: str) -> float | int:
    """Read a number with a fraction or exponent; whole ones become int, as Go prints them."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        msg = f"number {text} does not fit into 64 bits"
        raise ValueError(msg)
    return int(value) if abs(value) < _LARGEST and value == int(value) else value


def _constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's own parser lets through."""
    msg = f"{name} is not a JSON value"
    raise ValueError(msg)


class _Context:
    """The attributes that the C scanner reads from its maker."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_number)
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012 - the C scanner keeps its own


def _refuse(value: object) -> NoReturn:
    msg = f"a {type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)


_scan: Callable[[str, int], tuple[Any, int]]
try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_encoder as _make_encoder
    from _json import make_scanner as _make_scanner

    _scan = _make_scanner(_Context)  # type: ignore[arg-type] # only the attributes count
    _encode = _make_encoder(None, _refuse, _quote, None, ":", ",", True, False, False)

    def _compact(value: Any) -> str:
        return "".join(_encode(value, 0))
except ImportError:  # pragma: no cover - an interpreter without the C module
    import json as _json

    _scan = _json.JSONDecoder(parse_float=_number, parse_constant=_constant).raw_decode
    _quote = _json.dumps

    def _compact(value: Any) -> str:
        return _json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def loads(data: bytes | str) -> Any:
    """Read exactly one JSON value.

    ValueError with Go's wording and the position on anything else: bad UTF-8, a half document,
    trailing text, nesting deeper than the interpreter's stack.
    """
    text = _decode(data) if isinstance(data, bytes) else data
    start = 0
    while start < len(text) and text[start] in _SPACE:
        start += 1
    try:
        value, end = _scan(text, start)
    except RecursionError:
        raise ValueError(_too_deep(text)) from None
    except (SystemError, StopIteration, ValueError):
        raise ValueError(_complaint(text)) from None
    while end < len(text) and text[end] in _SPACE:
        end += 1
    if end < len(text):
        raise ValueError(f"invalid character {text[end]!r} after top-level value" + _at(text, end))
    return _without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def dumps(value: Any) -> str:
    """Write compact JSON, keys sorted, as Go writes a map; ASCII only."""
    try:
        return _compact(value)
    except RecursionError:
        msg = "the JSON value is nested too deeply"
        raise ValueError(msg) from None


def dumps_pretty(value: Any, indent: str = "") -> str:
    """Write JSON with 4 spaces a level, keys in the given order, no newline at the end."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        rows = [f"{_quote(key)}: {dumps_pretty(item, inner)}" for key, item in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list) and value:
        rows = [dumps_pretty(item, inner) for item in value]
        opening, closing = "[]"
    else:
        return _compact(value)
    return f"{opening}\n{inner}" + f",\n{inner}".join(rows) + f"\n{indent}{closing}"


def canonical(obj: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a copy whose known keys are spelled as in `keys`, whatever their case was.

    Go matches the fields of a struct that way. Of several spellings the last one wins, and null
    counts as absent. Unknown keys stay as they are.
    """
    spelling = {key.lower(): key for key in keys}
    out: dict[str, Any] = {}
    for key, value in obj.items():
        known = spelling.get(key.lower())
        if known is None:
            out[key] = value
        elif value is not None:
            out[known] = value
    return out


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8")
        msg = f"invalid UTF-8 byte 0x{data[error.start]:02x}" + _at(text, len(text))
        raise ValueError(msg) from None


def _at(text: str, index: int) -> str:
    """Say where `index` is, as people count: from 1."""
    line = text.count("\n", 0, index) + 1
    column = index - text.rfind("\n", 0, index)
    return f" (line {line} column {column}, offset {index})"


_KEY = "Expecting property name enclosed in double quotes"
_WORDING = {
    "Expecting value": "looking for beginning of value",
    _KEY: "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair or array element",
    "Invalid control character at": "in string literal",
    "Extra data": "after top-level value",
}


def _complaint(text: str) -> str:
    """Name what is wrong with a text that the scanner refused, in Go's words where it has them."""
    import json  # 6 ms, but this call has failed already

    try:
        json.loads(text, parse_float=_number, parse_constant=_constant)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip(_SPACE)) or error.msg.startswith("Unterminated string"):
            return "unexpected end of JSON input" + _at(text, len(text))
        words = _WORDING.get(error.msg)
        if words is None:
            return f"{error.msg[:1].lower()}{error.msg[1:]}" + _at(text, error.pos)
        return f"invalid character {text[error.pos]!r} {words}" + _at(text, error.pos)
    except RecursionError:
        return _too_deep(text)
    except ValueError as error:
        return _first_line(error)
    return "the text is not JSON"


def _first_line(error: ValueError) -> str:
    """Name what is wrong with a number; the interpreter's own limit says more than one wants."""
    text = str(error)
    return "number with too many digits" if text.startswith("Exceeds the limit") else text


def _too_deep(text: str) -> str:
    """Point at the bracket where the nesting became too much."""
    depth = 0
    quoted = escaped = False
    for index, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            if depth > _DEPTH:
                return "exceeded max depth" + _at(text, index)
        elif char in "]}":
            depth -= 1
    return "exceeded max depth"


def _without_surrogates(value: Any) -> Any:
    r"""Put U+FFFD for every half of a pair that stands alone ("\ud800"), as Go does."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value

"""JSON in and out: what is read, what is refused with which words, how it is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni import wire

READ: list[tuple[bytes, Any]] = [
    (b' {"a" : [1, 2.5, true, null]} \n', {"a": [1, 2.5, True, None]}),
    (b"1500", 1500),
    (b"[1e3, 15.0, 1E+2, -0.0]", [1000, 15, 100, 0]),
    (b"1e21", 1e21),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'"\\u00e9\\ud83d\\ude00"', "\u00e9\U0001f600"),
    (b'["\\ud800", {"\\udc00x": "\\uD800"}]', ["\ufffd", {"\ufffdx": "\ufffd"}]),
    (b"12345678901234567890", 12345678901234567890),
]


@pytest.mark.parametrize(("raw", "value"), READ)
def test_it_reads_what_go_reads(raw: bytes, value: object) -> None:
    assert wire.loads(raw) == value
    assert type(wire.loads(raw)) is type(value)


REFUSED = [
    (b"", "unexpected end of JSON input (line 1 column 1, offset 0)"),
    (b" \n", "unexpected end of JSON input (line 2 column 1, offset 2)"),
    (b'{"a":', "unexpected end of JSON input"),
    (b'{"a', "unexpected end of JSON input"),
    (b"[1,", "unexpected end of JSON input"),
    (b'{"a":1}\n x', "invalid character 'x' after top-level value (line 2 column 2, offset 9)"),
    (b"{} {}", "invalid character '{' after top-level value"),
    (b"{a}", "invalid character 'a' looking for beginning of object key string"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b"[[1 2]]", "invalid character '2' after object key:value pair or array element"),
    (b"nul", "invalid character 'n' looking for beginning of value"),
    (b'["\x01"]', "invalid character '\\x01' in string literal"),
    (b'"\\x"', "invalid \\escape (line 1 column 2, offset 1)"),
    (b"\xff{}", "invalid UTF-8 byte 0xff (line 1 column 1, offset 0)"),
    (b'{"a":"\xc3\xa9\xed\xa0\x80"}', "invalid UTF-8 byte 0xed (line 1 column 8, offset 7)"),
    (b"\xef\xbb\xbf{}", "BOM"),
    (b"NaN", "NaN is not a JSON value"),
    (b"[-Infinity]", "-Infinity is not a JSON value"),
    (b"[1e999]", "number 1e999 does not fit"),
    (b"1" * 5000, "too many digits"),
    (b"[" * 1_000_000, "exceeded max depth (line 1 column 501, offset 500)"),
    (b'{"a":' * 200_000, "exceeded max depth"),
    (b'["\\"[[", ' + b"[" * 5000, "exceeded max depth (line 1 column 509, offset 508)"),
]


@pytest.mark.parametrize(("raw", "words"), REFUSED, ids=lambda case: str(case)[:20])
def test_it_refuses_with_a_position(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        wire.loads(raw)


def test_text_is_read_as_bytes_are() -> None:
    assert wire.loads('{"a":1}') == {"a": 1}


def test_compact_text_has_sorted_keys_and_only_ascii() -> None:
    assert wire.dumps({"b": [1, None], "a": {"y": "\u00e9", "x": True}}) == (
        '{"a":{"x":true,"y":"\\u00e9"},"b":[1,null]}'
    )


def test_bytes_of_an_environment_survive_in_a_message() -> None:
    json.loads(wire.dumps("\udcff"))


@pytest.mark.parametrize("value", [{"a": object()}, {1, 2}])
def test_what_is_not_json_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        wire.dumps(value)


def test_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.dumps(float("nan"))


def test_a_value_too_deep_to_write_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="too deeply"):
        wire.dumps(value)
    while value:
        value = value.pop()  # freed level by level


def test_pretty_text_is_gos() -> None:
    value: dict[str, Any] = {"z": {}, "a": [], "l": [1, {"k": "v"}], "n": None}
    expected = """{
    "z": {},
    "a": [],
    "l": [
        1,
        {
            "k": "v"
        }
    ],
    "n": null
}"""
    assert wire.dumps_pretty(value) == expected
    assert json.loads(expected) == value


WITHOUT_C = r"""
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["_json"] = None
from cni import wire
assert wire.loads(b'{"a":[1e3,"\u00e9"]}') == {"a": [1000, "\u00e9"]}
assert wire.dumps({"b": 1, "a": "\u00e9"}) == '{"a":"\\u00e9","b":1}'
assert wire.dumps_pretty({"a": ["x"]}).count("\n") == 4
for bad in (b"", b"{} x", b"NaN", b"[" * 100000):
    try:
        wire.loads(bad)
    except ValueError:
        continue
    raise SystemExit(f"accepted {bad[:9]!r}")
"""


def test_an_interpreter_without_the_c_module_reads_the_same() -> None:
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-I", "-S", "-c", WITHOUT_C, root], check=True, timeout=20)


CANONICAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"HostPort": 1, "other": 2}, {"hostPort": 1, "other": 2}),
    ({"hostPort": 1, "HOSTPORT": 2}, {"hostPort": 2}),
    ({"hostPort": 1, "HOSTPORT": None}, {"hostPort": 1}),
    ({"hostport": None, "other": None}, {"other": None}),
]


@pytest.mark.parametrize(("given", "expected"), CANONICAL)
def test_known_keys_match_in_any_case(given: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(given)
    assert wire.canonical(given, ("hostPort",)) == expected
    assert given == before

"""JSON of others: whatever it is, it is read and can be written again, or it is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld import document

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON.filter(lambda value: "inf" not in repr(value)))
def test_what_is_json_is_read(value: object) -> None:
    assert document.load(json.dumps(value)) == value


@given(st.text() | st.binary())
def test_anything_is_read_or_refused(raw: str | bytes) -> None:
    try:
        value = document.load(raw)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("depth", [33, 63, 64, 65, 985, 2000, 100_000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_what_is_too_deep_is_refused(opened: str, closed: str, depth: int) -> None:
    with pytest.raises(ValueError, match="nested"):
        document.check(document.parse(opened * depth + "1" + closed * depth))


def test_what_is_too_long_is_refused() -> None:
    document.load(json.dumps("x" * 60_000))
    with pytest.raises(ValueError, match="70002 bytes, more than 65536"):
        document.load(json.dumps("x" * 70_000))


def test_one_that_is_too_deep_leaves_the_others() -> None:
    """Of a file with the documents of many, the others can be read."""
    deep = '["}\\"]",' * 5000 + '"[["' + "]" * 5000
    read = document.parse(f'{{"a": {{"b": [1, "[]"]}}, "deep": {deep}, "c": 2}}')
    assert (read["a"], read["c"]) == ({"b": [1, "[]"]}, 2)
    with pytest.raises(ValueError, match="nested"):
        document.check(read["deep"])
    document.check(read["a"])


@pytest.mark.parametrize("raw", ["[" * 5000, '["' * 5000, '"' + "\\" * 5001, '{"a":' * 5000])
def test_what_does_not_end_is_refused(raw: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        document.parse(raw)

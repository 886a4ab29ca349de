"""What people meet with these plugins beside the specification: pains, bad input, keys of the conf.

pains.toml, inputs.toml and fields.toml as sections of docs/user-coverage.md, which the verb
`coverage` writes. Nothing in them can rot unseen: a case, a verb or a reason that is not there is
an error, and so is a key of a conf that no case sets.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.__main__ import VERBS
from conformance.case import CaseError
from conformance.pages import Row, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.case import Case

FOLDER = Path(__file__).parent

INTRODUCTION = """\
# Coverage of what users meet

Written by `python -m conformance coverage`; do not edit. What users of these plugins have reported
for years, in our own words, with what is expected instead; bad input, each refused with its code
and nothing changed; and the keys of the confs. The cases are those of `conformance/cases`, verbs
those of `python -m conformance`. For the columns see [spec-coverage.md](spec-coverage.md).
"""


def sections(cases: list[Case]) -> list[Section]:
    """Give the page's sections; CaseError for what is named and is not there."""
    known = {case.id for case in cases}
    pains = [_pain(entry) for entry in _read("pains")["pain"]]
    inputs = [
        Row(f"input {number}", (entry["text"],), entry["cases"])
        for number, entry in enumerate(_read("inputs")["input"], 1)
    ]
    for row in [*pains, *inputs]:
        if missing := [name for name in row.cases if name not in known]:
            raise CaseError(f"{row.name}: there is no case {', '.join(missing)}")
        if not row.cases and not row.note:
            raise CaseError(f"{row.name}: neither a case nor a reason for having none")
    return [
        Section("What users have reported", ("", "symptom", "expected instead"), pains),
        Section("Bad input", ("", "what"), inputs),
        *_fields(cases),
    ]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))


def _pain(entry: dict[str, Any]) -> Row:
    """Turn an entry of pains.toml into a row."""
    verbs = entry.get("verbs", [])
    if unknown := set(verbs) - set(VERBS):
        raise CaseError(f"pain {entry['id']}: there is no verb {', '.join(sorted(unknown))}")
    cases = entry.get("cases", [])
    if bool(cases) != ("ideal" in entry):
        raise CaseError(f"pain {entry['id']}: cases and `ideal` come together")
    notes = [f"verbs {', '.join(verbs)}"] if verbs else []
    notes += [entry["why"]] if "why" in entry else []
    symptom = f"{entry['text']} ({entry['reports']})"
    return Row(f"pain {entry['id']}", (symptom, entry.get("ideal", "")), cases, "; ".join(notes))


def _fields(cases: list[Case]) -> Iterator[Section]:
    """Give a section for each plugin: its keys, and the cases whose conf has them."""
    for plugin, fields in _read("fields").items():
        confs = {
            case.id: {key for conf in confs_of(case) for key in keys(conf)}
            for case in cases
            if plugin in case.plugins
        }
        rows = [
            Row(f"{plugin}: {field}", (), [name for name, found in confs.items() if field in found])
            for field in fields
        ]
        if unused := [row.name for row in rows if not row.cases]:
            raise CaseError(f"no case has {', '.join(unused)} in its conf")
        yield Section(f"Keys of the conf of {plugin}", ("key",), rows)


def confs_of(case: Case) -> list[dict[str, Any]]:
    """Give what a case lays over its plugin's base conf."""
    return [case.conf, *(step.get("conf", {}) for step in case.steps)]


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Give the keys of a conf, those within others as `ipam.ranges.subnet`."""
    if isinstance(value, dict):
        for key, one in value.items():
            where = f"{path}.{key}" if path else key
            yield where
            yield from keys(one, where)
    elif isinstance(value, list):
        for one in value:
            yield from keys(one, path)

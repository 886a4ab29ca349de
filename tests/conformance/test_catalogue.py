"""The lists of what users meet: none of them can name what is not there, or leave out what is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance import catalogue, pages
from conformance.case import CaseError, load
from conformance.coverage import DOCS, SPEC_PAGE, USER_PAGE, cases_of, clause_sections, read_clauses
from conformance.pages import Row, Section, outdated

if TYPE_CHECKING:
    from conformance.runner import Verdict

README = Path(__file__).parents[2] / "README.md"
# Keys of the README's tables that are the runtime's, or stand for several.
NOT_OF_A_CONF = {"type", "prevResult", "cni.dev/valid-attachments", "CNI_ARGS", "MAC="}
# Tables of the README -> the plugin, and what goes before their keys in its conf.
TABLES = {
    "### `flannel`": ("flannel", ("", "ipam.")),
    "### `bridge`": ("bridge", ("",)),
    "### `host-local`": ("host-local", ("ipam.",)),
}


def readme_keys(heading: str) -> set[str]:
    """Keys in the first column of a section's tables, but those of what flannel adds by itself."""
    section = README.read_text("utf-8").partition(heading)[2].partition("\n### ")[0]
    section = re.sub(r"What flannel adds.*?(?=Keys of `ipam`)", "", section, flags=re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)} - NOT_OF_A_CONF


@pytest.mark.parametrize("heading", TABLES)
def test_each_key_of_the_readme_has_a_case(heading: str) -> None:
    plugin, before = TABLES[heading]
    listed = set(catalogue._read("fields")[plugin])
    documented = readme_keys(heading)
    assert len(documented) > 6
    assert {key for key in documented if not {b + key for b in before} & listed} == set()


def test_all_pains_are_there_once() -> None:
    pains = catalogue._read("pains")["pain"]
    assert [pain["id"] for pain in pains] == list(range(1, 39))
    assert len({pain["text"] for pain in pains}) == len(pains)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"cases": ["protocol/nowhere"], "ideal": "x"}, "no case protocol/nowhere"),
        ({"cases": [], "verbs": ["crash"], "ideal": "x"}, "come together"),
        ({"cases": ["protocol/version"]}, "come together"),
        ({"verbs": ["smash"]}, "no verb smash"),
        ({}, "neither a case nor a reason"),
    ],
)
def test_a_pain_that_names_what_is_not_there(
    entry: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = catalogue._read
    pain = {"id": 1, "reports": "r#1", "text": "t", **entry}
    monkeypatch.setattr(
        catalogue, "_read", lambda name: {"pain": [pain]} if name == "pains" else read(name)
    )
    with pytest.raises(CaseError, match=complaint):
        catalogue.sections(load())


def test_a_key_that_no_case_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    read = catalogue._read
    monkeypatch.setattr(
        catalogue,
        "_read",
        lambda name: {"bridge": ["mtu", "mtuu"]} if name == "fields" else read(name),
    )
    with pytest.raises(CaseError, match="no case has bridge: mtuu"):
        catalogue.sections(load())


def test_keys_within_lists_and_tables() -> None:
    conf = {"a": [[{"b": 1}, {"c": {"d": 2}}]], "e": {}}
    assert list(catalogue.keys(conf)) == ["a", "a.b", "a.c", "a.c.d", "e"]


SECTIONS = [
    Section("One", ("id", "what"), [Row("1", ("this",), ["a/b", "a/c"]), Row("2", ("that",), [])]),
    Section("Two", ("id", "what", "more"), [Row("3", ("x", "y"), ["a/b"], "verbs crash; why not")]),
]
CHANGES = [
    Row("1", ("this",), ["a/b"]),
    Row("1", ("other",), ["a/b", "a/c"]),
    Row("1", ("this",), ["a/b", "a/c"], "a note"),
    Row("4", ("new",), ["a/b"]),
]


def page_of(sections: list[Section]) -> str:
    verdicts: dict[str, list[Verdict]] = {"a/b": [], "a/c": []}
    return pages.written("# Title\n", sections, [verdicts, verdicts])


def test_a_page_is_read_as_it_was_written() -> None:
    assert outdated(page_of(SECTIONS), SECTIONS) == []


@pytest.mark.parametrize("row", CHANGES)
def test_a_page_that_is_not_up_to_date(row: Row) -> None:
    changed = [Section("One", ("id", "what"), [row, *SECTIONS[0].rows[1:]]), SECTIONS[1]]
    assert set(outdated(page_of(SECTIONS), changed)) == {"1", row.name}


def test_the_pages_are_those_of_the_lists() -> None:
    cases = load()
    clauses = read_clauses()
    spec = clause_sections(clauses, cases_of(clauses, cases))
    assert outdated((DOCS / SPEC_PAGE).read_text("utf-8"), spec) == []
    assert outdated((DOCS / USER_PAGE).read_text("utf-8"), catalogue.sections(cases)) == []


def test_a_clause_binds_a_plugin_or_the_runtime_and_has_a_known_level() -> None:
    for clause in read_clauses():
        assert clause["binds"] in {"plugin", "runtime"}, clause
        assert clause["level"] in {"MUST", "SHOULD", "MAY", "DEFINED"}, clause
        assert clause["id"].startswith(clause["section"][0]), clause
        assert not (clause["binds"] == "runtime" and "why" in clause), clause

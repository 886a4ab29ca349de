"""The tool itself: matchers, the reading of cases, and a plugin that does everything wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from conformance.__main__ import main
from conformance.case import CASES, CaseError, applicable, laid_over, load, read, spread
from conformance.expect import mismatches
from conformance.state import difference

if TYPE_CHECKING:
    from pathlib import Path

EARLIER = {"step1": {"result": {"mac": "0a:00", "ips": [{"address": "10.0.0.2/24"}]}}}

# expected, seen, whether they match
MATCHES: list[tuple[Any, Any, bool]] = [
    ({"a": 1}, {"a": 1, "b": 2}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": "absent"}, {"b": 1}, True),
    ({"a": "absent"}, {"a": None}, False),
    ({"a": "any"}, {"a": None}, True),
    ({"a": "any"}, {}, False),
    ([1, 2], [1, 2], True),
    ([1], [1, 2], False),
    ([{"a": 1}], [{"a": 1, "b": 2}], True),
    ({"has": [{"a": 1}]}, [{"a": 2}, {"a": 1}], True),
    ({"has": [{"a": 1}]}, [{"a": 2}], False),
    ({"lacks": [{"a": 1}]}, [{"a": 2}], True),
    ({"lacks": [{"a": 1}]}, [{"a": 1, "b": 2}], False),
    ({"count": 2}, [1, 2], True),
    ({"count": 2}, [1], False),
    ("re:^1[0-9]$", "15", True),
    ("re:^1[0-9]$", "25", False),
    ("re:1", 1, False),
    ("not-re:found", "not there", True),
    ("not-re:found", "not found", False),
    ("same-as:step1.result.ips.0.address", "10.0.0.2/24", True),
    ("same-as:step1.result.mac", "0b:00", False),
    ("not-as:step1.result.mac", "0b:00", True),
    ("x", "x", True),
    ("x", "y", False),
    ({"a": {"b": 1}}, {"a": 1}, False),
]


@pytest.mark.parametrize(("expected", "seen", "holds"), MATCHES)
def test_matchers(expected: Any, seen: Any, *, holds: bool) -> None:
    assert (mismatches(expected, seen, EARLIER) == []) is holds


def test_a_mismatch_names_place_expected_and_seen() -> None:
    expected = {"ips": [{"address": "10.0.0.9/24"}]}
    assert mismatches(expected, {"ips": [{"address": "10.0.0.2/24"}]}, {}) == [
        "ips.0.address: expected '10.0.0.9/24', seen '10.0.0.2/24'"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'why = "x"\nsource = "y"\n[[step]]\nverb = "ADD"\nexpects = {}',
            "unknown key step.expects",
        ),
        ('why = "x"\nsource = "y"\n[[step]]\nverb = "ADD"\nexpect.exit = 1', "expect.exit"),
        ('why = "x"\nsource = "y"\nfoo = 1\n[[step]]\nverb = "ADD"', "unknown key foo"),
        ('why = "x"\nsource = "y"', "at least one"),
        ('why = "x"\n[[step]]\nverb = "ADD"', "`spec` or `source`"),
        ('source = "x"\n[[step]]\nverb = "ADD"', "`why`"),
        ('why = "x"\nsource = "y"\n[[step]]\nexpect.stdout = "re:("', "'('"),
        ("why = ", "Invalid value"),
    ],
)
def test_a_misspelt_case_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "one.toml"
    file.write_text(text)
    with pytest.raises(CaseError, match=complaint.replace("(", "\\(").replace(")", "\\)")):
        read("area/one", file)


def test_versions_of_a_case() -> None:
    assert applicable(">=0.4.0") == ["0.4.0", "1.0.0", "1.1.0"]
    assert applicable("<=0.2.0") == ["0.1.0", "0.2.0"]
    assert len(applicable("all")) == 7


def test_confs_are_laid_over_one_another() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": [1]}
    above = {"a": {"b": "absent", "e": {"f": "absent"}}, "d": [2]}
    assert laid_over(below, above) == {"a": {"c": 2, "e": {}}, "d": [2]}
    assert below == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_difference_in_lines() -> None:
    before = {"host": {"links": {"lo": 1, "eth0": {"mtu": 1500}}}, "rules": ["a", "b"]}
    after = {"host": {"links": {"eth0": {"mtu": 1400}, "v": 2}}, "rules": ["b", "b"]}
    assert difference(before, after) == [
        "host.links.lo: gone: 1",
        "host.links.eth0.mtu: 1500 -> 1400",
        "host.links.v: new: 2",
        "rules: gone: 'a'",
        "rules: new: 'b'",
    ]


def test_there_are_enough_cases_and_each_has_its_own_reason() -> None:
    cases = load()
    assert len(cases) > 280
    assert len({case.why for case in cases}) == len(cases)
    assert len(spread(cases, ["flannel", "bridge", "host-local"], "all")) > 1500


# It answers VERSION, and to everything else with a line that is no JSON.
WRONG = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","1.0.0"]}' ;;
*) echo "Traceback (most recent call last):" ;;
esac
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    program = tmp_path / "host-local"
    program.write_text(WRONG)
    program.chmod(0o755)
    return tmp_path


@pytest.mark.kernel
def test_a_plugin_that_does_everything_wrong(
    wrong: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--bin-dir", str(wrong), "--case", "host-local/re*", "--json"]
    assert main(words) == 1
    printed = capfd.readouterr()
    report = json.loads(printed.out)
    outcomes = {(run["case"], run["version"]): run["outcome"] for run in report["runs"]}
    assert outcomes["host-local/result", "0.3.1"] == "failed"
    assert outcomes["host-local/result", "0.4.0"] == "lacking"
    assert (
        "FAILED host-local/result:host-local@1.0.0: step 1 (ADD): stdout is not one" in printed.err
    )
    assert "--spec 1.0.0 --case host-local/result --show" in printed.err


@pytest.mark.kernel
def test_reports_are_well_formed(wrong: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--bin-dir", str(wrong), "--case", "host-local/requested-*"]
    main([*words, "--report", "junit"])
    suite = ET.fromstring(capfd.readouterr().out)  # noqa: S314 -- our own
    cases = str(len(list(CASES.glob("host-local/requested-*.toml"))))
    assert (suite.get("failures"), suite.get("tests")) == (cases, cases)
    main([*words, "--report", "markdown"])
    assert "| host-local/requested-taken | host-local | 1.0.0 | failed |" in capfd.readouterr().out


@pytest.mark.kernel
def test_a_folder_without_plugins_is_no_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--bin-dir", str(tmp_path), "--case", "protocol/version"]) == 0
    assert "3 not applicable" in capfd.readouterr().out


def test_misuse_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--case", "nothing/*"]) == 2
    assert main([]) == 2
    assert "usage: python -m conformance VERB" in capfd.readouterr().err

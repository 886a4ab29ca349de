"""Reports of a run: text, markdown, JSON and JUnit's XML, each a string."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.runner import Verdict

FORMATS = ("text", "markdown", "json", "junit")


def written(form: str, verdicts: list[Verdict], bin_dir: Path, seconds: float) -> str:
    """Write a report in one of FORMATS."""
    writer = {"text": text, "markdown": markdown, "json": as_json, "junit": junit}[form]
    return writer(verdicts, bin_dir, seconds)


def figure(verdicts: list[Verdict], seconds: float) -> str:
    """Sum a run up in one line."""
    count = Counter(verdict.outcome for verdict in verdicts)
    cases = len({verdict.instance.case.id for verdict in verdicts})
    served = sum(verdict.served for verdict in verdicts)
    resident = f"; the resident process served {served} calls" if served else ""
    return (
        f"run: {cases} cases, {len(verdicts)} runs: {count['passed']} passed, "
        f"{count['failed']} failed, {count['lacking']} not applicable, {seconds:.0f} s{resident}"
    )


def text(verdicts: list[Verdict], bin_dir: Path, seconds: float) -> str:
    """List what was lacking, grouped, then the figure; failures were told as they happened."""
    del bin_dir
    reasons = Counter(v.lines[0] for v in verdicts if v.outcome == "lacking")
    lines = [f"not applicable, {count} runs: {reason}" for reason, count in reasons.most_common()]
    return "\n".join([*lines, figure(verdicts, seconds)])


def markdown(verdicts: list[Verdict], bin_dir: Path, seconds: float) -> str:
    """Make a table of all instances."""
    lines = [f"# Conformance of {bin_dir}", "", figure(verdicts, seconds), ""]
    lines += ["| case | plugin | version | outcome | what |", "|---|---|---|---|---|"]
    for verdict in verdicts:
        case, plugin, version = verdict.instance
        said = "; ".join(verdict.lines).replace("|", "\\|").replace("\n", " ")
        lines.append(
            f"| {case.id} | {plugin} | {version} | {verdict.outcome} | {said or case.why} |"
        )
    return "\n".join(lines)


def as_json(verdicts: list[Verdict], bin_dir: Path, seconds: float) -> str:
    """Give everything for programs."""
    runs = [
        {
            "case": verdict.instance.case.id,
            "plugin": verdict.instance.plugin,
            "version": verdict.instance.version,
            "spec": verdict.instance.case.spec,
            "source": verdict.instance.case.source,
            "outcome": verdict.outcome,
            "lines": verdict.lines,
            "seconds": round(verdict.seconds, 3),
        }
        for verdict in verdicts
    ]
    count = Counter(verdict.outcome for verdict in verdicts)
    summary = {"bin_dir": str(bin_dir), "seconds": round(seconds, 1), "counts": dict(count)}
    return json.dumps({**summary, "runs": runs}, indent=2)


def junit(verdicts: list[Verdict], bin_dir: Path, seconds: float) -> str:
    """Give JUnit's XML, which most build servers read."""
    count = Counter(verdict.outcome for verdict in verdicts)
    suite = ET.Element(
        "testsuite",
        name=f"cni-conformance {bin_dir}",
        tests=str(len(verdicts)),
        failures=str(count["failed"]),
        skipped=str(count["lacking"]),
        time=f"{seconds:.1f}",
    )
    for verdict in verdicts:
        case, plugin, version = verdict.instance
        element = ET.SubElement(
            suite,
            "testcase",
            classname=case.id.replace("/", "."),
            name=f"{plugin}@{version}",
            time=f"{verdict.seconds:.3f}",
        )
        if verdict.outcome == "failed":
            failure = ET.SubElement(element, "failure", message=printable(verdict.lines[0]))
            failure.text = printable("\n".join(verdict.lines))
        elif verdict.outcome == "lacking":
            ET.SubElement(element, "skipped", message=verdict.lines[0])
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def printable(words: str) -> str:
    """Replace characters that XML cannot hold."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in words
    )

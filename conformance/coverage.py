"""`python -m conformance coverage`: docs/spec-coverage.md and docs/user-coverage.md.

The first goes through the specification clause by clause (clauses.toml), the second through what
users meet (catalogue.py). Runs the cases that they name on two folders, and writes for each line
what became of them. `--check` runs and writes nothing: it compares the lines and cases that the
pages have with those that there are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance import catalogue, pages
from conformance.case import CASES, PLUGINS, CaseError, load, spread
from conformance.options import Parser
from conformance.pages import Row, Section, outdated
from conformance.runner import FAILED, Runner, run_all
from conformance.words import positive
from conformance.world import GO_PLUGINS

if TYPE_CHECKING:
    from conformance.case import Case
    from conformance.runner import Verdict

CLAUSES = Path(__file__).parent / "clauses.toml"
DOCS = Path(__file__).resolve().parents[1] / "docs"
SPEC_PAGE, USER_PAGE = "spec-coverage.md", "user-coverage.md"

INTRODUCTION = """\
# Coverage of the CNI specification

Written by `python -m conformance coverage`; do not edit. Every MUST and SHOULD of sections 2 to 5
of the CNI specification 1.1.0 in our own words, and what is laid down without a key word (DEFINED),
with the cases of `conformance/cases` that hold plugins to it.

`ours` is this project's pair, `Go` Debian's containernetworking-plugins ({peer}).
**yes**: every run of every case passed. **n of m**: the others failed. **-**: the plugins do not
have it (no such plugin, an older version of the specification), or the kernel does not. A clause
that binds the runtime has no case: no plugin can fulfil it.
"""


def read_clauses() -> list[dict[str, Any]]:
    """Read clauses.toml; CaseError if an id comes twice."""
    clauses: list[dict[str, Any]] = tomllib.loads(CLAUSES.read_text("utf-8"))["clause"]
    twice = [name for name, n in Counter(clause["id"] for clause in clauses).items() if n > 1]
    if twice:
        raise CaseError(f"clauses.toml has {', '.join(twice)} twice")
    return clauses


def cases_of(clauses: list[dict[str, Any]], cases: list[Case]) -> dict[str, list[Case]]:
    """Give the cases of each clause; CaseError if a case names one that there is not."""
    known = {clause["id"] for clause in clauses}
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for name in case.spec:
            if name not in known:
                raise CaseError(f"{case.id}: there is no clause {name}")
            found[name].append(case)
    uncovered = [
        clause["id"]
        for clause in clauses
        if clause["binds"] == "plugin" and clause["id"] not in found and "why" not in clause
    ]
    if uncovered:
        raise CaseError(f"neither a case nor a reason for having none: {', '.join(uncovered)}")
    return found


def clause_sections(clauses: list[dict[str, Any]], cases: dict[str, list[Case]]) -> list[Section]:
    """Give the sections of the specification's page."""
    found: dict[str, list[Row]] = {}
    for clause in clauses:
        named = [case.id for case in cases.get(clause["id"], [])]
        note = "binds the runtime" if clause["binds"] == "runtime" else clause.get("why", "")
        if note and clause["binds"] != "runtime":
            note = f"none: {note}"
        row = Row(clause["id"], (clause["level"], clause["text"]), named, note)
        found.setdefault(clause["section"], []).append(row)
    heads = ("clause", "level", "says that")
    return [Section(section, heads, rows) for section, rows in found.items()]


def differences(verdicts: dict[str, list[Verdict]]) -> str:
    """List failures under a heading, a line for each case, plugin and reason; or nothing."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for several in verdicts.values():
        for verdict in several:
            if verdict.outcome == FAILED:
                case, plugin, version = verdict.instance
                reason = re.sub(r"\s+", " ", verdict.lines[0])
                reason = re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "(a MAC)", reason)
                reason = re.sub(r"veth[0-9a-f]{8}", "veth...", reason)[:240].replace("|", "\\|")
                found[f"`{case.id}` {plugin}", reason.replace(version, "V")].append(version)
    lines = [f"- {what} {', '.join(v)}: {reason}\n" for (what, reason), v in found.items()]
    heading = "\n## Where Go's plugins differ from the cases above\n\n"
    return heading + "".join(lines) if lines else ""


def verdicts_of(cases: list[Case], bin_dir: Path, jobs: int) -> dict[str, list[Verdict]]:
    """Run cases on a folder: case id -> verdicts."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in run_all(Runner(bin_dir), spread(cases, list(PLUGINS)), jobs):
        found[verdict.instance.case.id].append(verdict)
    return found


def main(argv: list[str]) -> int:
    """Run the verb; 0 if our column has no failure, or with --check the pages are up to date."""
    options = Parser(prog="python -m conformance coverage", description=__doc__)
    options.add_argument("--peer-dir", type=Path, default=Path(GO_PLUGINS), help="column `Go`")
    options.add_argument("--output", type=Path, default=DOCS, help="folder of the two pages")
    options.add_argument("--check", action="store_true", help="are the pages up to date?")
    options.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))
    args = options.parse_args(argv)
    try:
        clauses = read_clauses()
        everything = load(CASES)
        cases = cases_of(clauses, everything)
        users = catalogue.sections(everything)
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    spec = clause_sections(clauses, cases)
    if args.check:
        return check(args.output, {SPEC_PAGE: spec, USER_PAGE: users})
    asked = {name for section in [*spec, *users] for row in section.rows for name in row.cases}
    named = [case for case in everything if case.id in asked]
    columns = [
        verdicts_of(named, path.resolve(), args.jobs) for path in (args.bin_dir, args.peer_dir)
    ]
    args.output.mkdir(exist_ok=True)
    introduction = INTRODUCTION.format(peer=peer_version(args.peer_dir))
    clause_cases = {case.id for several in cases.values() for case in several}
    text = pages.written(introduction, spec, columns)
    text += differences({name: v for name, v in columns[1].items() if name in clause_cases})
    (args.output / SPEC_PAGE).write_text(text, "utf-8")
    text = pages.written(catalogue.INTRODUCTION, users, columns)
    (args.output / USER_PAGE).write_text(text, "utf-8")
    bad = [v for several in columns[0].values() for v in several if v.outcome == FAILED]
    for verdict in bad:
        print(f"FAILED {verdict.instance.id}: {verdict.lines[0]}", file=sys.stderr)
    bound = [clause for clause in clauses if clause["binds"] == "plugin"]
    with_case = sum(clause["id"] in cases for clause in bound)
    print(
        f"coverage: {len(clauses)} clauses, {len(bound)} bind plugins, {with_case} of these have "
        f"cases; {len(named)} of {len(everything)} cases named; {len(bad)} runs failed"
    )
    return int(bool(bad))


def check(folder: Path, wanted: dict[str, list[Section]]) -> int:
    """Compare the pages with what there is."""
    stale = []
    for name, sections in wanted.items():
        text = (folder / name).read_text("utf-8") if (folder / name).exists() else ""
        stale += [f"{folder / name}: {row} is not up to date" for row in outdated(text, sections)]
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        print("run: python -m conformance coverage", file=sys.stderr)
        return 1
    rows = sum(len(section.rows) for sections in wanted.values() for section in sections)
    print(f"coverage: {', '.join(wanted)} list all {rows} lines and their cases")
    return 0


def peer_version(folder: Path) -> str:
    """Give the version of Debian's package if the folder is from it, else the folder."""
    if str(folder) != GO_PLUGINS:
        return str(folder)
    query = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or GO_PLUGINS

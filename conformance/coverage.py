"""`python -m conformance coverage`: docs/spec-coverage.md, clause by clause, for two folders.

Runs the cases that name a clause of clauses.toml, on both folders, and writes for each clause what
became of them. `--check` writes nothing: it compares the clauses and cases that the page lists with
those that there are.
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

from conformance.case import CASES, PLUGINS, CaseError, load, spread
from conformance.options import Parser
from conformance.runner import FAILED, LACKING, Runner, run_all
from conformance.world import GO_PLUGINS

if TYPE_CHECKING:
    from conformance.case import Case
    from conformance.runner import Verdict

CLAUSES = Path(__file__).parent / "clauses.toml"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "spec-coverage.md"

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


def cell(cases: list[Case], verdicts: dict[str, list[Verdict]]) -> str:
    """Say what became of a clause's cases."""
    outcomes = [verdict.outcome for case in cases for verdict in verdicts[case.id]]
    counted = [outcome for outcome in outcomes if outcome != LACKING]
    if not counted:
        return "-"
    failed = counted.count(FAILED)
    return "**yes**" if not failed else f"{len(counted) - failed} of {len(counted)}"


def page(
    clauses: list[dict[str, Any]],
    cases: dict[str, list[Case]],
    columns: list[dict[str, list[Verdict]]],
    peer: str,
) -> str:
    """Write the page."""
    lines = [INTRODUCTION.format(peer=peer)]
    section = ""
    for clause in clauses:
        if clause["section"] != section:
            section = clause["section"]
            lines += ["", f"## {section}", "", "| clause | level | says that | ours | Go | cases |"]
            lines.append("|---|---|---|---|---|---|")
        mine = cases.get(clause["id"], [])
        if clause["binds"] == "runtime":
            cells, named = ["", ""], "binds the runtime"
        elif not mine:
            cells, named = ["", ""], f"none: {clause['why']}"
        else:
            cells = [cell(mine, verdicts) for verdicts in columns]
            named = ", ".join(f"`{case.id}`" for case in mine)
        row = [f"`{clause['id']}`", clause["level"], clause["text"], *cells, named]
        lines.append(f"| {' | '.join(row)} |")
    failures = differences(columns[1])
    if failures:
        lines += ["", "## Where Go's plugins differ from the cases above", "", *failures]
    return "\n".join(lines) + "\n"


def differences(verdicts: dict[str, list[Verdict]]) -> list[str]:
    """List failures, a line for each case, plugin and reason."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for several in verdicts.values():
        for verdict in several:
            if verdict.outcome == FAILED:
                case, plugin, version = verdict.instance
                reason = re.sub(r"\s+", " ", verdict.lines[0])
                reason = re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "(a MAC)", reason)
                reason = re.sub(r"veth[0-9a-f]{8}", "veth...", reason)[:240].replace("|", "\\|")
                found[f"`{case.id}` {plugin}", reason.replace(version, "V")].append(version)
    return [f"- {what} {', '.join(v)}: {reason}" for (what, reason), v in found.items()]


def listed(text: str) -> list[tuple[str, list[str]]]:
    """Read clauses and their cases from a page."""
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    return [(name, re.findall(r"`([^`]+)`", cases)) for name, cases in rows]


def verdicts_of(cases: list[Case], bin_dir: Path, jobs: int) -> dict[str, list[Verdict]]:
    """Run cases on a folder: case id -> verdicts."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in run_all(Runner(bin_dir), spread(cases, list(PLUGINS)), jobs):
        found[verdict.instance.case.id].append(verdict)
    return found


def main(argv: list[str]) -> int:
    """Run the verb; 0 if our own column has no failure, or with --check the page is up to date."""
    options = Parser(prog="python -m conformance coverage", description=__doc__)
    options.add_argument("--peer-dir", type=Path, default=Path(GO_PLUGINS), help="column `Go`")
    options.add_argument("--output", type=Path, default=PAGE)
    options.add_argument("--check", action="store_true", help="is the page up to date?")
    options.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0))))
    args = options.parse_args(argv)
    try:
        clauses = read_clauses()
        everything = load(CASES)
        cases = cases_of(clauses, everything)
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    if args.check:
        return check(args.output, clauses, cases)
    named = [case for case in everything if case.spec]
    columns = [
        verdicts_of(named, path.resolve(), args.jobs) for path in (args.bin_dir, args.peer_dir)
    ]
    peer = peer_version(args.peer_dir)
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(page(clauses, cases, columns, peer), "utf-8")
    bad = [v for several in columns[0].values() for v in several if v.outcome == FAILED]
    for verdict in bad:
        print(f"FAILED {verdict.instance.id}: {verdict.lines[0]}", file=sys.stderr)
    bound = [clause for clause in clauses if clause["binds"] == "plugin"]
    with_case = sum(clause["id"] in cases for clause in bound)
    print(
        f"coverage: {len(clauses)} clauses, {len(bound)} bind plugins, {with_case} of these have "
        f"cases; {len(named)} cases, {len(bad)} runs failed; {args.output}"
    )
    return int(bool(bad))


def check(output: Path, clauses: list[dict[str, Any]], cases: dict[str, list[Case]]) -> int:
    """Compare the page with what there is."""
    wanted = [(c["id"], [case.id for case in cases.get(c["id"], [])]) for c in clauses]
    found = listed(output.read_text("utf-8")) if output.exists() else []
    if wanted == found:
        print(f"coverage: {output.name} lists all {len(clauses)} clauses and their cases")
        return 0
    for clause in [name for name, _ in wanted if (name, dict(wanted)[name]) not in found]:
        print(f"{output}: {clause} is not up to date", file=sys.stderr)
    print("run: python -m conformance coverage", file=sys.stderr)
    return 1


def peer_version(folder: Path) -> str:
    """Give the version of Debian's package if the folder is from it, else the folder."""
    if str(folder) != GO_PLUGINS:
        return str(folder)
    query = ["dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or GO_PLUGINS

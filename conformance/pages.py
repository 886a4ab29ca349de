"""Generated pages of tables: what is asked for, what became of the cases that answer, and which.

A page is sections of rows. It is written after the cases have run on two folders of plugins, and
read again to tell whether it still names what there is. Knows nothing of where rows come from.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from conformance.runner import FAILED, LACKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.runner import Verdict

NO_JUDGEMENT = ""


class Row(NamedTuple):
    """One line of a table: `told` are the columns before the judgements, `note` follows `cases`."""

    name: str
    told: tuple[str, ...]
    cases: list[str]
    note: str = ""


class Section(NamedTuple):
    """A heading, the titles of the columns before the judgements, and the rows."""

    title: str
    heads: tuple[str, ...]
    rows: list[Row]


def written(
    introduction: str, sections: Iterable[Section], columns: list[dict[str, list[Verdict]]]
) -> str:
    """Write a page; `columns` are the verdicts of each folder by case, ours first."""
    lines = [introduction]
    for section in sections:
        heads = [*section.heads, "ours", "Go", "cases"]
        lines += [
            "",
            f"## {section.title}",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        for row in section.rows:
            cells = [cell(row.cases, verdicts) for verdicts in columns]
            named = "; ".join(filter(None, [", ".join(f"`{one}`" for one in row.cases), row.note]))
            lines.append(f"| {' | '.join([f'`{row.name}`', *row.told, *cells, named])} |")
    return "\n".join(lines) + "\n"


def cell(cases: list[str], verdicts: dict[str, list[Verdict]]) -> str:
    """Say what became of a row's cases."""
    outcomes = [verdict.outcome for case in cases for verdict in verdicts[case]]
    counted = [outcome for outcome in outcomes if outcome != LACKING]
    if not counted:
        return "-" if cases else NO_JUDGEMENT
    failed = counted.count(FAILED)
    return "**yes**" if not failed else f"{len(counted) - failed} of {len(counted)}"


def outdated(text: str, sections: Iterable[Section]) -> list[str]:
    """Name the rows that a page has not, or has with other words or cases; and those it has alone.

    What became of the cases is not compared: that takes running them.
    """
    rows = [row for section in sections for row in section.rows]
    wanted = {row.name: (row.told, row.cases, row.note) for row in rows}
    found = {}
    for line in re.findall(r"^\| `[^`]+` \|.*\|$", text, re.MULTILINE):
        first, *told, _, _, named = line.removeprefix("| ").removesuffix(" |").split(" | ")
        cases = re.findall(r"`([^`]+/[^`]+)`", named)
        note = named.removeprefix(", ".join(f"`{case}`" for case in cases)).removeprefix("; ")
        found[first.strip("`")] = tuple(told), cases, note
    return [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]

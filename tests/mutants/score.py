"""The score of a run: how many mutants of each area were noticed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.mutants.mutant import AREAS, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.mutants.mutant import Mutant

BAR = 95
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- score -->\n", "<!-- end of score -->"


class Score(NamedTuple):
    """Mutants of an area, those that were noticed, and those proven equivalent."""

    mutants: int
    noticed: int
    equivalent: int

    @property
    def per_cent(self) -> float:
        """Noticed ones, of those that can be."""
        return 100 * self.noticed / max(1, self.mutants - self.equivalent)

    @property
    def reached(self) -> bool:
        """Whether the area is not below the bar."""
        return self.per_cent >= BAR


def score(verdicts: Mapping[Mutant, str]) -> dict[str, Score]:
    """Count the verdicts by area."""
    counts = Counter((mutant.area, verdict) for mutant, verdict in verdicts.items())
    totals = Counter(mutant.area for mutant in verdicts)
    return {
        area: Score(totals[area], counts[area, "noticed"], counts[area, "equivalent"])
        for area in AREAS
        if totals[area]
    }


def table(scores: Mapping[str, Score]) -> str:
    """Write the scores as a table in Markdown."""
    whole = Score(*(sum(column) for column in zip(*scores.values(), strict=True)))
    lines = ["| area | mutants | noticed | equivalent | score |", "|---|---|---|---|---|"]
    lines += [
        f"| {area} | {one.mutants} | {one.noticed} | {one.equivalent} | {one.per_cent:.1f} % |"
        for area, one in [*scores.items(), ("all", whole)]
    ]
    return "\n".join(lines) + "\n"


def write(scores: Mapping[str, Score]) -> None:
    """Put the scores into the page for developers."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table(scores)}{END}{after}")

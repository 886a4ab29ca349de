"""The benchmark's figures and their table."""

from __future__ import annotations

from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One measured figure beside its peer, and what it is held against.

    `bar` (has to hold) and `goal` (is aimed at) are limits of the ratio where there is one, else of
    our value; with `more`, more is better.
    """

    name: str
    unit: str
    ours: float
    theirs: float | None
    ratio: float | None = None
    bar: float | None = None
    goal: float | None = None
    more: bool = False

    def reaches(self, limit: float | None) -> bool:
        """Whether a limit is kept; there may be none."""
        if limit is None:
            return True
        value = self.ours if self.ratio is None else self.ratio
        return value >= limit if self.more else value <= limit

    @property
    def holds(self) -> bool:
        """Whether the bar is kept."""
        return self.reaches(self.bar)

    @property
    def verdict(self) -> str:
        """What to think of it, in a word."""
        if self.bar is None:
            return ""
        return "MISSED" if not self.holds else "goal" if self.reaches(self.goal) else "bar"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**self._asdict(), "verdict": self.verdict}


def print_table(figures: list[Figure]) -> None:
    """Print the figures as a Markdown table, which reads well as it is."""
    rows = [["figure", "ours", "Go", "ratio", "bar", "goal", "reached"]]
    for figure in figures:
        sign = ">=" if figure.more else "<="
        rows.append(
            [
                figure.name,
                f"{number(figure.ours)} {figure.unit}",
                "" if figure.theirs is None else f"{number(figure.theirs)} {figure.unit}",
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                "" if figure.bar is None else f"{sign} {figure.bar:g}",
                "" if figure.goal is None else f"{sign} {figure.goal:g}",
                figure.verdict,
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print(
            "| "
            + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            + " |"
        )


def number(value: float) -> str:
    """Three digits are what a benchmark knows."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

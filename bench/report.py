"""The benchmark's figures, what they are held against, and their table."""

from __future__ import annotations

from typing import Any, NamedTuple

PEER = "Go"


class Limits(NamedTuple):
    """What one side's figure is held against: `bar` has to hold, `goal` is aimed at.

    They are about the ratio to the peer's where it has a value, unless they are `absolute`; with
    `more`, more is better.
    """

    bar: float
    goal: float
    more: bool = False
    absolute: bool = False

    def reached(self, value: float, limit: float) -> bool:
        """Whether a value keeps a limit."""
        return value >= limit if self.more else value <= limit

    def verdict(self, value: float) -> str:
        """What to think of a value, in a word."""
        if not self.reached(value, self.bar):
            return "MISSED"
        return "goal" if self.reached(value, self.goal) else "bar"


class Figure(NamedTuple):
    """One figure: side -> its value, and side -> its limits, for those that have any."""

    name: str
    unit: str
    values: dict[str, float]
    limits: dict[str, Limits]

    def ratio(self, side: str) -> float | None:
        """Return a side's value against the peer's; None where one is missing."""
        if side == PEER or side not in self.values or PEER not in self.values:
            return None
        return self.values[side] / self.values[PEER]

    def judged(self, side: str) -> float:
        """The number that a side's limits are about."""
        ratio = self.ratio(side)
        return self.values[side] if ratio is None or self.limits[side].absolute else ratio

    def verdicts(self) -> dict[str, str]:
        """Side -> verdict."""
        return {side: one.verdict(self.judged(side)) for side, one in self.limits.items()}

    def cell(self, side: str) -> str:
        """Return a side's ratio, verdict and limits, for the table."""
        ratio = self.ratio(side)
        words = [] if ratio is None else [f"{ratio:.2f}"]
        if side in self.limits:
            bar, goal, more, absolute = self.limits[side]
            unit = f" {self.unit}" if absolute else ""
            words += [self.verdicts()[side], f"({'>=' if more else '<='} {bar:g}, {goal:g}{unit})"]
        return " ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        ratios = {side: self.ratio(side) for side in self.values if side != PEER}
        limits = {side: one._asdict() for side, one in self.limits.items()}
        return {**self._asdict(), "limits": limits, "ratios": ratios, "verdicts": self.verdicts()}


def print_table(figures: list[Figure], sides: list[str]) -> None:
    """Print the figures as a Markdown table, which reads well as it is."""
    ours = [side for side in sides if side != PEER]
    rows = [["figure", *sides, *(f"{side} / {PEER}, (bar, goal)" for side in ours)]]
    for figure in figures:
        values = [
            f"{number(figure.values[side])} {figure.unit}" if side in figure.values else ""
            for side in sides
        ]
        rows.append([figure.name, *values, *map(figure.cell, ours)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")


def number(value: float) -> str:
    """Three digits are what a benchmark knows."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

"""One small change of the product that a test must notice, and the lists of them, one per area.

A mutant is a text that is in its file exactly once, and what it becomes: lines move, texts stay.
`tests` are what pytest is given to find it. One that no test can find, because the program does the
same with it, carries the proof of that in `equivalent`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent
AREAS = ("cni", "ipam", "netlink", "cni_flannel", "flanneld")


@dataclass(frozen=True)
class Mutant:
    """A change of one file, below the checkout; `says` is what goes wrong with it."""

    area: str
    file: str
    text: str
    becomes: str
    says: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def applied_to(self, source: str) -> str:
        """Return the source with the change; ValueError if the text is not in it exactly once."""
        count = source.count(self.text)
        if count != 1:
            raise ValueError(f"{self.file} has {count} times, and not once: {self.text!r}")
        return source.replace(self.text, self.becomes)

    def line(self, root: Path = ROOT) -> int:
        """Where the text begins in the file."""
        before, found, _ = (root / self.file).read_text().partition(self.text)
        return before.count("\n") + 1 if found else 0


def mutants(area: str) -> list[Mutant]:
    """Read an area's list. Its tables `[[file.mutants]]` stand below the file and its tests."""
    document = tomllib.loads((LISTS / f"{area}.toml").read_text())
    return [
        Mutant(
            area,
            path,
            one["text"].strip("\n"),
            one["becomes"].strip("\n"),
            one["says"],
            tuple(one.get("tests", file["tests"])),
            one.get("equivalent", ""),
        )
        for path, file in document.items()
        for one in file["mutants"]
    ]

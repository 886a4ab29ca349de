"""`./build.sh mutate [AREA...]`: whether the tests notice what must not go wrong.

Each mutant of the areas (all of them, if none is named) is put into a private copy of the checkout,
and its tests run there. Those that they let pass are printed, and the score of each area: mutants
that were noticed, of all but the ones that are proven equivalent. The exit status is 0 if no area
is below the bar.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.command import run_command
from conformance.words import Words, positive
from tests.mutants.mutant import AREAS, mutants
from tests.mutants.score import score, table, write
from tests.mutants.tree import HUNG, Tree

if TYPE_CHECKING:
    import argparse

    from tests.mutants.mutant import Mutant

LIMIT_S = 600.0
BASELINE_LIMIT_S = 3600.0
PASSED, FAILED = 0, 1
VERDICTS = {PASSED: "survived", FAILED: "noticed", HUNG: "noticed"}


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Words(prog="./build.sh mutate", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--only", default="", metavar="TEXT", help="in the file's name, or in SAYS")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count(), metavar="N")
    parser.add_argument("--write", action="store_true", help="the score into docs/testing.md")
    parser.add_argument("--show", action="store_true", help="what pytest says of each survivor")
    chosen = parser.parse_args(argv)
    if unknown := [area for area in chosen.areas if area not in AREAS]:
        parser.error(f"no area {', '.join(unknown)}: there are {', '.join(AREAS)}")
    return chosen


class Run:
    """Mutants on their way through some trees; `verdicts` has those that are through."""

    def __init__(self, chosen: list[Mutant], folder: Path, jobs: int, *, show: bool) -> None:
        self.chosen = chosen
        self.verdicts: dict[Mutant, str] = {}
        self._show = show
        self._waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        self._trees = [Tree(folder / str(number)) for number in range(jobs)]

    def unchanged(self) -> str:
        """Run all their tests without a change; what pytest says when they do not pass."""
        tests = sorted({test for mutant in self.chosen for test in mutant.tests})
        jobs = len(self._trees)
        status, output = self._trees[0].test(*tests, limit_s=BASELINE_LIMIT_S, jobs=jobs)
        return "" if status == PASSED else output

    def all(self) -> None:
        """Judge every mutant."""
        for mutant in self.chosen:
            self._waiting.put(mutant)
        threads = [threading.Thread(target=self._work, args=[tree]) for tree in self._trees]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            with contextlib.suppress(queue.Empty):  # after Ctrl-C nothing more is begun
                while True:
                    self._waiting.get_nowait()

    def _work(self, tree: Tree) -> None:
        while True:
            try:
                mutant = self._waiting.get_nowait()
            except queue.Empty:
                return
            began = time.monotonic()
            with tree.changed(mutant):
                status, output = tree.test(*mutant.tests, limit_s=LIMIT_S)
            verdict = VERDICTS.get(status, f"pytest ended with {status}")
            if mutant.equivalent and verdict == "survived":
                verdict = "equivalent"
            self.verdicts[mutant] = verdict
            where = f"{mutant.file}:{mutant.line()}"
            print(
                f"{time.monotonic() - began:6.1f} s  {verdict:<10}  {where}  {mutant.says}",
                flush=True,
            )
            if self._show and verdict not in {"noticed", "equivalent"}:
                print(output, flush=True)


def main(argv: list[str]) -> int:
    """Run; 0 if the bar is reached, 1 if not, 2 if nothing could be judged."""
    options = arguments(argv)
    chosen = [
        mutant
        for area in options.areas or AREAS
        for mutant in mutants(area)
        if options.only in mutant.file or options.only in mutant.says
    ]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        run = Run(chosen, Path(folder), options.jobs, show=options.show)
        print(f"{len(chosen)} mutants; first their tests without a change", flush=True)
        if refusal := run.unchanged():
            print(f"{refusal}\ntests fail without a change: nothing to judge", file=sys.stderr)
            return 2
        run.all()
    scores = score(run.verdicts)
    for mutant, verdict in run.verdicts.items():
        if verdict not in {"noticed", "equivalent"}:
            print(f"\n{verdict}: {mutant.file}:{mutant.line()}: {mutant.says}")
            print(
                f"  - {mutant.text.strip()}\n  + {mutant.becomes.strip()}\n  tests: {mutant.tests}"
            )
    print(f"\n{table(scores)}")
    if options.write:
        write(scores)
    return 0 if all(one.reached for one in scores.values()) else 1


if __name__ == "__main__":
    run_command("mutate", lambda: main(sys.argv[1:]))

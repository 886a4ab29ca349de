"""`python -m tests.lab [VERB [OPTION...]]`: the lab's figures as a table, or the demonstration.

Without a verb everything is measured, in its full form. `./build.sh lab` calls this.
"""

from __future__ import annotations

import os
import sys
import traceback

from conformance.command import run_command
from tests.lab import demo
from tests.lab.figures import FULL, VERBS, Row
from tests.lab.node import program
from tests.lab.space import ROOT, LabError
from tests.lab.words import parse


def measure(words: str) -> list[Row]:
    """Run one verb; what does not hold is told at once, and is a row of the table."""
    args = parse(words.split())
    print(f"lab: {words}", file=sys.stderr, flush=True)
    rows: list[Row] = []
    try:
        rows.extend(VERBS[args.verb](args))
    except (AssertionError, LabError, OSError):
        traceback.print_exc()
        rows.append(Row("**failed**", "see above"))
    return rows


def table(commands: list[str]) -> int:
    """Run commands and print what they found; the exit status."""
    found = [(row, words) for words in commands for row in measure(words)]
    command = " ".join(program()).removeprefix(f"{ROOT}/")
    machine = f"Linux {os.uname().release}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
    print(f"{machine} at the end, `{command}`\n")
    print("| what | figure | `./build.sh lab` ... |\n|---|---|---|")
    for row, words in found:
        print(f"| {row.what} | {row.figure} | `{words}` |")
    return int(any("failed" in row.what for row, _ in found))


def main(argv: list[str]) -> int:
    if os.geteuid() != 0:  # root of a user namespace does
        again = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "tests.lab", *argv]
        os.execvp(again[0], again)
    args = parse(argv)
    if args.verb == "demo":
        return demo.show(args)
    return table([" ".join(argv)] if argv else [*FULL])


if __name__ == "__main__":
    ended = "interrupted: the lab has ended, and with it all that was in it"
    run_command("lab", lambda: main(sys.argv[1:]), ended)

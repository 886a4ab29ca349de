"""`python -m tests.fuzz [--inputs N] [--target NAME]... [--atheris]`: many inputs for every reader.

With `--atheris` the inputs are not drawn but bred: what reaches new lines of our code is changed
and tried again (packaging/locks/fuzz.txt, which `./build.sh conformance` installs).
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from conformance.command import run_command, threads
from conformance.stress.figure import Figure, Tally
from conformance.stress.pool import spread
from conformance.words import Words, positive
from tests.fuzz.batches import Nothing, fuzz
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 2000
# Long enough for hypothesis to build a whole conf from, and so from the first input on.
_SIZE = ("-max_len=4096", "-len_control=0")


def main(argv: list[str]) -> int:
    parser = Words(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=positive, default=200_000)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--atheris", action="store_true", help="breed the inputs by coverage")
    parser.add_argument("--jobs", type=positive, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args(argv)
    names = args.target or list(TARGETS)
    each = -(-args.inputs // len(names))
    kind = "bred" if args.atheris else "in-process"
    figure = Figure(f"{kind} fuzz", ("inputs",), as_json=args.json)
    for tally in (bred if args.atheris else drawn)(names, each, args.jobs, args.seed):
        figure.add(tally)
        figure.progress(f"{figure.counts['inputs']} of {args.inputs}")
    return figure.finish()


def drawn(names: list[str], each: int, jobs: int, seed: int) -> Iterator[Tally]:
    """Let hypothesis draw `each` inputs for every target."""
    batches = [
        (name, min(_BATCH, each - start), seed + start)
        for start in range(0, each, _BATCH)
        for name in names
    ]
    return spread(jobs, Nothing, (), fuzz, batches)


def bred(names: list[str], each: int, jobs: int, seed: int) -> Iterator[Tally]:
    """Let atheris breed `each` inputs for every target, a process for each."""
    with threads(jobs) as pool:
        yield from pool.map(partial(_breed, each, seed), names)


def _breed(each: int, seed: int, name: str) -> Tally:
    options = [f"-runs={each}", f"-seed={seed % 2**31}", "-artifact_prefix=/dev/null", *_SIZE]
    command = [sys.executable, "-m", "tests.fuzz.harness", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and f"Done {each} runs" in done.stderr:
        return Tally({"inputs": each}, [])
    return Tally({}, [f"{name}: exit status {done.returncode}: {done.stderr[-1500:]}"])


if __name__ == "__main__":
    run_command("fuzz", lambda: main(sys.argv[1:]))

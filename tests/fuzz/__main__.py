"""`python -m tests.fuzz [--inputs N] [--target NAME]...`: many inputs for every reader."""

from __future__ import annotations

import argparse
import sys
import time

from conformance.stress.figure import Figure
from conformance.stress.pool import spread
from tests.fuzz.batches import Nothing, fuzz
from tests.fuzz.targets import TARGETS

_BATCH = 2000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args(argv)
    names = args.target or list(TARGETS)
    figure = Figure("in-process fuzz", ("inputs",), as_json=args.json)
    each = -(-args.inputs // len(names))
    batches = [
        (name, min(_BATCH, each - start), args.seed + start)
        for start in range(0, each, _BATCH)
        for name in names
    ]
    for tally in spread(args.jobs, Nothing, (), fuzz, batches):
        figure.add(tally)
        figure.progress(f"{figure.counts['inputs']} of {args.inputs}")
    return figure.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

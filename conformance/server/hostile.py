"""Clients of the resident process' socket that do everything but what a launcher does.

After each the process lives, has the threads and the descriptors that it had, the node is as it
was, and the next attachment of a launcher is served.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from conformance.server import manners, requests
from conformance.server.site import Site, options, possible, wait_until
from conformance.stress import pool
from conformance.stress.figure import Figure, Tally

if TYPE_CHECKING:
    import argparse

_REST_S = 0.2
_NAMES = {play.__name__: play for play in (*requests.CLIENTS, *manners.CLIENTS)}


def belongings(site: Site) -> dict[str, int]:
    """Count what a process has: threads and descriptors."""
    pid = site.resident.process.pid
    return {what: len(os.listdir(f"/proc/{pid}/{what}")) for what in ("task", "fd")}


def at_rest(site: Site) -> dict[str, int]:
    """Count until it does not change: the last connection may not be closed yet."""
    before: dict[str, int] = {}
    while before != (before := belongings(site)):
        time.sleep(_REST_S)
    return before


def try_client(site: Site, name: str) -> Tally:
    """Let one client try; what was wrong during it and afterwards."""
    site.begin()
    problems = site.judge_life()
    before, pid = at_rest(site), site.resident.process.pid
    problems += _NAMES[name](site)
    if not site.resident.is_alive or site.resident.process.pid != pid:
        problems.append("the resident process is gone")
        site.resident.start()
    elif not wait_until(lambda: belongings(site) == before):
        problems.append(f"the process had {before}, and has {belongings(site)}")
    site.resident.forget()  # what a client asks is in the log as well
    site.settle()
    problems += [f"afterwards: {line}" for line in [*site.left(), *site.judge_life()]]
    if problems:
        site.restart()
    return Tally({"clients": 1}, [f"{name}: {problem}" for problem in problems])


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("server-hostile", __doc__ or "")
    parser.add_argument("--client", choices=_NAMES, action="append", help="default: all")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("server-hostile", ("clients",), as_json=args.json)
    todo = possible(args.client or list(_NAMES), manners.strangers.__name__, figure)
    for tally in pool.spread(args.jobs, Site, (args.bin_dir, "v4"), try_client, todo):
        figure.add(tally)
        figure.progress(f"{figure.counts['clients']} of {len(todo)}")
    return figure.finish()

"""SIGKILL of the resident process at every system call of an ADD and of a DEL that it serves.

The launcher has to do the call itself, whatever of it was done already: an ADD succeeds and its
result is true, a DEL leaves nothing. Then another resident process is started where the killed one
was, and has to serve. With --stops, SIGSTOP at some of the places instead: the launcher waits as
long as it may, does the call itself, and what the process does when it goes on must not harm.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from conformance.server import struck
from conformance.server.site import Site, options, wait_until
from conformance.stress import pool
from conformance.stress.figure import Figure, Tally
from conformance.stress.scene import KINDS
from conformance.stress.verdict import brief, code_of, complaints
from conformance.words import natural, positive

if TYPE_CHECKING:
    import argparse

    from conformance.stress.injection import Place
    from conformance.world import Outcome

_TRY_AGAIN_LATER, _KERNEL_REFUSED = 11, 101
_SETTLE_S = 3.0


class Strike(NamedTuple):
    """What is struck in which verb: `signal` is KILL or STOP."""

    victim: str
    place: Place
    signal: str


def strikes(site: Site, every: int, stops: int) -> list[Strike]:
    """Record an ADD and a DEL of the resident process; the places of both."""
    resident = site.resident
    found = []
    site.begin()
    for victim in ("ADD", "DEL"):
        with struck.recording(resident):
            done = site.call(victim)
        assert done.status == 0, done
        places = struck.recorded(resident)
        found += [Strike(victim, place, "KILL") for place in places[::every]]
        found += [Strike(victim, place, "STOP") for place in spread_over(places, stops)]
    resident.forget()
    return found


def spread_over(places: list[Place], number: int) -> list[Place]:
    """Return so many of the places, at equal distances."""
    step = len(places) / (number + 1)
    return [places[int(step * (position + 1))] for position in range(number)]


def try_strike(site: Site, strike: Strike) -> Tally:
    """Strike once; what was wrong."""
    counts = {f"{strike.signal}s tried": 1}
    problems = site.bounded(lambda: _try_strike(site, strike, counts))
    where = f"{site.kind} {strike.victim}, {strike.signal} at {strike.place}"
    return Tally(counts, [f"{where}: {problem}" for problem in problems])


def _try_strike(site: Site, strike: Strike, counts: dict[str, int]) -> list[str]:
    resident = site.resident
    site.begin()
    problems = site.judge_add(site.call("ADD")) if strike.victim == "DEL" else []
    with struck.striking(resident, strike.place, f"signal={strike.signal}"):
        done = site.call(strike.victim)
    if strike.signal == "STOP":  # only now: another thread could be struck at the same place
        _go_on(site)
    resident.forget()
    if strike.signal == "KILL" and wait_until(lambda: not resident.is_alive, _SETTLE_S):
        resident.start()
    elif strike.signal == "KILL":
        counts["not reached"] = 1
    return problems + _judge(site, strike, done, counts)


def _judge(site: Site, strike: Strike, done: Outcome, counts: dict[str, int]) -> list[str]:
    """Judge the answer and what there is; then the attachment goes, and nothing is left of it."""
    problems = []
    if strike.signal == "STOP" and code_of(done) == _TRY_AGAIN_LATER:
        counts["told to try again"] = 1  # the stopped process holds a lock
        problems = complaints(done)
    elif "not reached" in counts and code_of(done) == _KERNEL_REFUSED:
        counts["a child was struck"] = 1  # nft, say; the process lived to say so
        problems = complaints(done)
    elif strike.victim == "ADD":
        problems = site.judge_add(done)
    else:
        problems = site.judge_del(done)
    problems += site.judge_del(site.call("DEL"))
    return [*problems, f"the call said {brief(done)}"] if problems else []


def _go_on(site: Site) -> None:
    """Let a stopped process go on, and wait until it has ended what it was about."""
    resident = site.resident
    told = resident.log()
    resident.kill(signal.SIGCONT)
    wait_until(lambda: resident.log() != told, _SETTLE_S)
    site.settle()


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("server-crash", __doc__ or "")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--every", type=positive, default=1, help="only every K-th system call")
    parser.add_argument("--stops", type=natural, default=0, help="SIGSTOPs for each kind and verb")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("server-crash", ("KILLs tried", "not reached"), as_json=args.json)
    for kind in args.kind or KINDS:
        place = (args.bin_dir, kind)
        with Site(*place) as site:
            todo = strikes(site, args.every, args.stops)
        for number, tally in enumerate(pool.spread(args.jobs, Site, place, try_strike, todo), 1):
            figure.add(tally)
            figure.progress(f"{kind}: {number} of {len(todo)}")
    return figure.finish()

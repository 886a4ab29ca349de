"""SIGKILL at every system call of an ADD and of a DEL; then the runtime's clean-up must do.

For each place at which an ADD can be killed, three ways to go on: DEL succeeds and leaves nothing;
a fresh ADD without DEL succeeds, and its DEL leaves nothing; and for each place of a DEL, another
DEL succeeds and leaves nothing. A node that has just started (no bridge, no leases) is the start
of each, but in `v4-neighbour`, where another pod must keep all that is its own.

An ADD that is killed after its last change to the kernel has left a complete attachment. A second
ADD may refuse that, as the specification asks (section 2: an interface that exists already); then
it counts as complete, and DEL and ADD after it must work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from conformance.stress import injection, pool
from conformance.stress.figure import Figure, Tally, options
from conformance.stress.scene import KINDS, Scene
from conformance.stress.verdict import brief, complaints
from conformance.words import positive

if TYPE_CHECKING:
    import argparse

    from conformance.stress.injection import Place
    from conformance.world import Outcome

_LEAKS = ("left: ", "lost: ", "DEL", "fresh ADD", "no end")
WAYS = ("add-del", "add-add", "del-del")


class Kill(NamedTuple):
    """One kill: how it goes on (WAYS), and where it strikes."""

    way: str
    place: Place

    @property
    def victim(self) -> str:
        return self.way[:3].upper()


def kills(scene: Scene, ways: list[str], every: int) -> list[Kill]:
    """Record an ADD and a DEL; every `every`-th place of each, for each way."""
    found = []
    scene.begin()
    for victim in ("ADD", "DEL"):
        done = scene.call(victim, prefix=injection.record("/run/trace"))
        assert done.status == 0, done
        trace = scene.world.path("/run/trace").read_text()
        for shift, way in enumerate(way for way in ways if way.upper().startswith(victim)):
            every_one = injection.places(trace)
            found += [Kill(way, place) for place in every_one[shift % every :: every]]
    scene.world.path("/run/trace").unlink()
    scene.restart()
    return found


def try_kill(scene: Scene, kill: Kill) -> Tally:
    """Kill once, go on as the runtime would; what was wrong."""
    counts = {"kills tried": 1}
    problems = scene.bounded(lambda: _try_kill(scene, kill, counts))
    counts["leaks"] = int(any(problem.startswith(_LEAKS) for problem in problems))
    where = f"{scene.kind} {kill.way} at {kill.place}"
    return Tally(counts, [f"{where}: {problem}" for problem in problems])


def _try_kill(scene: Scene, kill: Kill, counts: dict[str, int]) -> list[str]:
    scene.begin()
    if kill.victim == "DEL":
        done = scene.call("ADD")
        if done.status != 0:
            return [f"ADD before the killed DEL: {brief(done)}"]
    struck = scene.call(kill.victim, prefix=injection.strike(kill.place, "signal=KILL"))
    problems = []
    if struck.status == 0:
        counts["not reached"] = 1
    elif struck.status > 0:  # a child was killed, and the plugin lived to say so
        problems += complaints(struck)
    if kill.way == "add-add" and struck.status != 0:
        problems += _add_again(scene, counts)
    done = scene.call("DEL")
    if done.status != 0 or done.stdout:
        problems.append(f"DEL: {brief(done)}")
    return problems + scene.left()


def _add_again(scene: Scene, counts: dict[str, int]) -> list[str]:
    done = scene.call("ADD")
    if done.status != 0 and _is_complete(done):
        counts["complete"] = 1
        if scene.call("DEL").status != 0:
            return ["DEL of a complete attachment failed"]
        done = scene.call("ADD")
    return [] if done.status == 0 else [f"fresh ADD: {brief(done)}"]


def _is_complete(done: Outcome) -> bool:
    return "already exists" in done.stdout and not complaints(done)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("crash", __doc__ or "")
    parser.add_argument("--plugin", default="flannel", choices=("flannel", "bridge"))
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--way", action="append", choices=WAYS, help="default: all")
    parser.add_argument("--every", type=positive, default=1, help="only every K-th system call")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("crash", ("kills tried", "leaks", "complete"), as_json=args.json)
    for kind in args.kind or KINDS:
        place = (args.bin_dir, kind, args.plugin)
        with Scene(*place) as scene:
            todo = kills(scene, args.way or list(WAYS), args.every)
        done = pool.spread(args.jobs, Scene, place, try_kill, todo)
        for number, tally in enumerate(done, 1):
            figure.add(tally)
            figure.progress(f"{kind}: {number} of {len(todo)}")
    return figure.finish()

"""Thousands of ADD and DEL on one node: at the end everything is as it was at the start.

Compared: links, addresses, routes, neighbours, rules, switches, files, processes, mounts, network
namespaces and open files of whoever lives in the world. Several pods take turns, so that leases
wrap around; every so often all of them are attached at once. The times of the first and the last
tenth are shown: a plugin that slows down keeps something.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Any

from conformance.stress.figure import Figure, options
from conformance.stress.scene import KINDS, Scene
from conformance.stress.verdict import brief
from conformance.words import positive
from conformance.world import difference

if TYPE_CHECKING:
    import argparse

    from conformance.world import World

PODS = tuple(f"soak{number}" for number in range(8))
_ROUND = 100  # cycles from one crowd to the next


class Soak:
    """A scene, its pods, and what was measured."""

    def __init__(self, scene: Scene, figure: Figure) -> None:
        self.scene = scene
        self.figure = figure
        self.seconds: list[float] = []
        for pod in PODS:
            scene.world.add_pod(pod)

    def cycle(self, number: int) -> bool:
        """One ADD and DEL, or all pods at once; whether it went well."""
        pods = PODS if number % _ROUND == 0 else (PODS[number % len(PODS)],)
        start = time.monotonic()
        went_well = True
        for command in ("ADD", "DEL"):
            for pod in pods:
                went_well &= self._call(command, pod, number)
        self.seconds.append((time.monotonic() - start) / len(pods))
        self.figure.count("ADD/DEL cycles", len(pods))
        return went_well

    def _call(self, command: str, pod: str, number: int) -> bool:
        done = self.scene.call(command, pod, f"cid-{pod}-{number}")
        if done.status != 0:
            self.figure.fail(f"{command} of cycle {number}: {brief(done)}")
        return done.status == 0

    def drift(self) -> str:
        """Times of the first and the last tenth."""
        tenth = max(1, len(self.seconds) // 10)
        first, last = (
            statistics.median(part) * 1000 for part in (self.seconds[:tenth], self.seconds[-tenth:])
        )
        return f"{first:.0f} ms a cycle at the start, {last:.0f} ms at the end"


def everything(world: World) -> dict[str, Any]:
    """The world's state, and what the state leaves out."""
    state = world.state()
    for path in [path for path in state["files"] if "/last_reserved_ip." in path]:
        del state["files"][path]  # the round robin goes on
    pid = world.holder.pid
    mounts = world.path("/").joinpath(f"proc/{pid}/mountinfo").read_text()
    return state | {
        "mounts": len(mounts.splitlines()),
        "namespaces": len(world.pods()),
        "descriptors of the world's first process": len(os.listdir(f"/proc/{pid}/fd")),
        "entries below /var/lib": sorted(
            f"{folder}/{name}"
            for folder, folders, files in os.walk(world.path("/var/lib"))
            for name in [*folders, *files]
        ),
    }


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("soak", __doc__ or "")
    parser.add_argument("--plugin", default="flannel", choices=("flannel", "bridge"))
    parser.add_argument("--kind", choices=KINDS, default="dual-nftables")
    parser.add_argument("--cycles", type=positive, default=5000)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("soak", ("ADD/DEL cycles", "traits changed"), as_json=args.json)
    with Scene(args.bin_dir, args.kind, args.plugin) as scene:
        soak = Soak(scene, figure)
        soak.cycle(0)
        before = everything(scene.world)
        start = time.monotonic()
        number = 0
        while figure.counts["ADD/DEL cycles"] < args.cycles and len(figure.failures) < 20:
            number += 1
            soak.cycle(number)
            if number % 50 == 0:
                figure.progress(f"{number} of {args.cycles}, {time.monotonic() - start:.0f} s")
        changed = difference(before, everything(scene.world))
        figure.account(scene.world)
    figure.count("traits changed", len(changed))
    for line in changed:
        figure.fail(line)
    if not args.json:
        print(f"soak: {soak.drift()}")
    return figure.finish()

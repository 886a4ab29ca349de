"""Very many calls through one resident process, which must not grow.

Several pods at once, each attached, checked and detached, with calls that fail and calls for the
whole network in between. Once a thousand calls have warmed it up, its memory is measured; at the
end it may be 2 MiB more, and threads and descriptors must be as many.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.command import threads
from conformance.server.hostile import at_rest
from conformance.server.site import Site, options
from conformance.stress.figure import Figure
from conformance.stress.verdict import brief
from conformance.words import positive

if TYPE_CHECKING:
    import argparse

    from conformance.outcome import Outcome

PODS = tuple(f"soak{number}" for number in range(8))
GROWTH_KIB = 2048


class Soak:
    """A site, its pods, and what was called."""

    def __init__(self, site: Site, figure: Figure) -> None:
        self.site = site
        self.figure = figure
        self.lock = threading.Lock()
        self.calls = 0
        for pod in PODS:
            site.world.add_pod(pod)

    def run(self, calls: int) -> None:
        """Call until so many calls have been made."""
        with threads(len(PODS)) as pool:
            list(pool.map(lambda pod: self._live_on(pod, calls), PODS))

    def _live_on(self, pod: str, calls: int) -> None:
        while self.calls < calls and len(self.figure.failures) < 20:
            self._live(pod, f"cid-{pod}-{self.calls}")

    def _live(self, pod: str, cid: str) -> None:
        """One attachment, and what else may be asked of a plugin."""
        added = self._call("ADD", pod, cid)
        if added.status != 0:
            return
        result = added.result
        self._call("CHECK", pod, cid, prevResult=result)
        self._call("ADD", pod, f"{cid}-again", wanted=1)  # there is an eth0
        self._call("CHECK", pod, "cid-nobody", wanted=1, prevResult=result)
        self._call("STATUS", pod, cid, cniVersion="1.1.0")
        self._call("ADD", pod, cid, wanted=1, cniVersion="7.0.0")
        self._call("DEL", pod, f"{cid}-again")
        self._call("DEL", pod, cid, prevResult=result)

    def _call(self, command: str, pod: str, cid: str, wanted: int = 0, **changes: Any) -> Outcome:
        done = self.site.call(command, pod, cid, **changes)
        with self.lock:
            self.calls += 1
            self.figure.count("calls")
            if done.status != wanted:
                self.figure.fail(f"{command} of {cid}: {brief(done)}")
        return done

    def measure(self) -> dict[str, int]:
        """Memory in KiB, threads and descriptors of the process when it has nothing to do."""
        belongings = at_rest(self.site)
        status = Path(f"/proc/{self.site.resident.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        anonymous = sum(int(lines[key].split()[0]) for key in ("RssAnon", "VmSwap"))
        return {"KiB of memory": anonymous, **belongings}


def judge(figure: Figure, before: dict[str, int], after: dict[str, int]) -> None:
    """Compare two measurements; what has grown is a failure."""
    grown = after["KiB of memory"] - before["KiB of memory"]
    figure.note(f"memory {before['KiB of memory']} -> {after['KiB of memory']} KiB")
    if grown > GROWTH_KIB:
        figure.fail(f"the resident process has grown by {grown} KiB")
    for what in ("task", "fd"):
        if before[what] != after[what]:
            figure.fail(f"{what}: {before[what]} -> {after[what]}")


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("server-soak", __doc__ or "")
    parser.add_argument("--calls", type=positive, default=100_000)
    parser.add_argument(
        "--warm", type=positive, default=1000, help="calls before the first measure"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("server-soak", ("calls",), as_json=args.json)
    with Site(args.bin_dir, "v4") as site:
        soak = Soak(site, figure)
        soak.run(args.warm)
        before, traits = soak.measure(), site.traits()
        while soak.calls < args.calls and not figure.failures:
            soak.run(min(args.calls, soak.calls + args.warm))
            figure.progress(f"{soak.calls} of {args.calls}, {json.dumps(soak.measure())}")
        judge(figure, before, soak.measure())
        for line in sorted(site.traits() ^ traits):
            figure.fail(f"changed: {line}")
        figure.account(site.world)
    return figure.finish()

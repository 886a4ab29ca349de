"""Whole calls with random environment, stdin and files, on a node that must stay as it was.

After each call: exit status 0 or 1, exactly one JSON document or nothing on stdout, a code of the
table, no traceback, a cause in every error, an end in time. What ADD has accepted CHECK finds in
order. Then the attachment is taken away, and apart from bridges (which an ADD may make) and files
below /run/x, /run/y and /var/lib/cni the node is as before: its physical link, its other bridge,
another living attachment, its files. `calls` has the calls.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis.errors import HypothesisException

from conformance.stress import pool
from conformance.stress.calls import LEASE, STATE, calls
from conformance.stress.figure import Figure, Tally, options
from conformance.stress.hostile import Stage
from conformance.stress.scene import CONTAINER, POD
from conformance.stress.verdict import brief, causeless, complaints
from conformance.words import positive
from conformance.world import difference

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from conformance.stress.calls import Call
    from conformance.world import Outcome

DEADLINE_S = 30.0
_WITH_CHECK = ("0.4.0", "1.0.0", "1.1.0")
_BATCH = 100  # calls of one worker's turn
_READ_ONLY = """
awk '{print $5}' /proc/self/mountinfo | while read -r place; do
    case $place in
        /run* | /var/lib* | /etc* | /proc* | /sys*) ;;
        *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
    esac
done
"""
_CLEAN = f"""
ip -n {POD} -o link | awk -F'[ :@]+' '$2 != "lo" {{print $2}}' |
    while read -r name; do ip -n {POD} link del "$name"; done
ip -o link show type bridge | awk -F'[ :@]+' '{{print $2}}' | grep -vx -e cni0 -e other0 |
    while read -r name; do ip link del "$name"; done
rm -rf /run/x /run/y /var/lib/cni/x
"""


class Broken(AssertionError):
    """What a call must not do, in a line for each."""


class Pond(Stage):
    """A stage of which everything beyond /run and /var/lib is read-only."""

    def __init__(self, bin_dir: Path) -> None:
        super().__init__(bin_dir)
        self.world.run(["sh", "-c", _READ_ONLY])
        self.tried = 0
        self.ended_well = 0
        self.before = self.frame()

    def frame(self) -> dict[str, Any]:
        """What no call may change: the node without bridges made by ADDs and the plugin's files."""
        state = self.world.state()
        host, pod = state["host"], state["pods"][POD]
        bridges = {n for n, link in host["links"].items() if link.get("kind") == "bridge"} - {
            "other0"
        }
        kept = {name: link for name, link in host["links"].items() if name not in bridges}
        return {
            "links": kept,
            "addresses": {name: host["addresses"][name] for name in kept},
            "routes": [route for route in host["routes"] if route.get("dev") not in bridges],
            "pod": [pod["links"], pod["addresses"], pod["routes"]],
            "neighbour": [
                state["pods"]["neighbour"][key] for key in ("links", "addresses", "routes")
            ],
            "rules": [line for line in state["rules"] if "cid-neighbour" in line],
            "files": {
                path: text
                for path, text in state["files"].items()
                if path.startswith("/run/decoy") or text.startswith("cid-neighbour\r\n")
            },
            "processes": state["processes"],
        }

    def run_one(self, call: Call) -> None:
        """Make one call; Broken when it or what it left is wrong."""
        self._plant(call)
        problems = []
        try:
            done = self._call(call)
            self.ended_well += done.status == 0
            problems = complaints(done) + causeless(done)
            if call.verb == "ADD" and "CNI_COMMAND" not in call.environ and done.status == 0:
                problems += self._confirm(call, done)
            self._detach(call)
        except subprocess.TimeoutExpired:
            problems = [f"no end after {DEADLINE_S:g} s"]
        self.tried += 1
        problems += difference(self.before, self.frame())
        if problems:
            self.world.run(["sh", "-c", _CLEAN], check=False)
            self._restart_if_needed()
            raise Broken("; ".join(problems))

    def _restart_if_needed(self) -> None:
        if difference(self.before, self.frame()):
            self.restart()
            self.before = self.frame()

    def _plant(self, call: Call) -> None:
        world = self.world
        world.path("/run/flannel/subnet.env").unlink(missing_ok=True)
        if call.subnet_env is not None:
            world.write("/run/flannel/subnet.env", call.subnet_env)
        world.path(STATE.format(CONTAINER)).unlink(missing_ok=True)
        if call.state is not None:
            world.write(STATE.format(CONTAINER), call.state)
        for name, content in call.leases.items():
            path = world.path(LEASE.format("cbr0", name))
            if not (path.exists() and path.read_bytes().startswith(b"cid-neighbour")):
                world.write(LEASE.format("cbr0", name), content)

    def _call(self, call: Call) -> Outcome:
        environ = self.world.environment(call.verb, CONTAINER, "eth0", f"/run/netns/{POD}")
        for key, value in call.environ.items():
            environ.pop(key, None)
            if value is not None:
                environ[key] = value
        program = self.world.program("flannel")
        return self.world.run([program], call.stdin, environ, check=False, timeout=DEADLINE_S)

    def _confirm(self, call: Call, added: Outcome) -> list[str]:
        """CHECK right after ADD finds nothing wrong, in the versions that have it."""
        conf = json.loads(call.stdin)
        if conf.get("cniVersion") not in _WITH_CHECK:
            return []
        conf["prevResult"] = json.loads(added.stdout)
        checked = self._call(call._replace(verb="CHECK", stdin=json.dumps(conf).encode()))
        return [f"CHECK after ADD: {brief(checked)}"] if checked.status else []

    def _detach(self, call: Call) -> None:
        """DEL as a runtime would; then whatever else the call was entitled to make."""
        if call.verb == "ADD":
            gone = self._call(call._replace(verb="DEL"))
            if problems := complaints(gone, document=False):
                raise Broken(f"DEL: {'; '.join(problems)}")
        self.world.run(["sh", "-c", _CLEAN], check=False)
        for name in self.world.files(LEASE.format("cbr0", "")):
            path = self.world.path(LEASE.format("cbr0", name))
            if name[:1].isdigit() and not path.read_bytes().startswith(b"cid-neighbour"):
                path.unlink()


def fish(pond: Pond, batch: tuple[int, int]) -> Tally:
    """Make a batch of calls from a seed; the smallest call that shows a failure."""
    number, seed = batch
    tried, well = pond.tried, pond.ended_well

    @with_seed(seed)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(calls)
    def check(call: Call) -> None:
        pond.run_one(call)

    failures = []
    try:
        check()
    except (Broken, BaseExceptionGroup, HypothesisException) as error:
        failures = [f"{_all_of(error)} (seed {seed})"]
    return Tally({"calls": pond.tried - tried, "succeeded": pond.ended_well - well}, failures)


def _all_of(error: BaseException) -> str:
    """A failure, those that it is a group of, and hypothesis' notes, on one line."""
    those = (error, *(error.exceptions if isinstance(error, BaseExceptionGroup) else ()))
    texts = [text for one in those for text in (str(one), *getattr(one, "__notes__", []))]
    return " ".join(" ".join(texts).split())


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("fuzz", __doc__ or "")
    parser.add_argument("--calls", type=positive, default=5000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args(argv)


def _batches(number: int, seed: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, number, size):
        yield min(size, number - start), seed + start


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("fuzz", ("calls", "succeeded"), as_json=args.json)
    size = min(_BATCH, -(-args.calls // args.jobs))
    batches = _batches(args.calls, args.seed, size)
    for tally in pool.spread(args.jobs, Pond, (args.bin_dir,), fish, batches):
        figure.add(tally)
        figure.progress(f"{figure.counts['calls']} of {args.calls}")
    return figure.finish()

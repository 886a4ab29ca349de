"""`python -m conformance run`: every case against the plugins of a folder, each in its own world.

A case that asks for a plugin, a version or a kernel feature that is not there is reported as such,
and is no failure.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from subprocess import SubprocessError, TimeoutExpired
from typing import TYPE_CHECKING, NamedTuple

from conformance import progress, report
from conformance.case import CASES, PLUGINS, SINCE, VERSIONS, CaseError, load, spread
from conformance.command import threads
from conformance.options import Parser
from conformance.resident import SOCKET, folder_of
from conformance.steps import TIME_LIMIT, Play, one_line
from conformance.words import positive
from conformance.world import World, WorldError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from conformance.case import Instance
    from conformance.steps import Call

PASSED, FAILED, LACKING = "passed", "failed", "lacking"

# Commands that succeed where there is what cases may need, of the kernel for the most part.
FEATURES = {
    "bridge-vlan": "ip link add probe0 type bridge vlan_filtering 1 && ip link del probe0",
    "iptables-legacy": "iptables-legacy -t nat -S && ip6tables-legacy -t nat -S",
    "ipv6": "test -e /proc/sys/net/ipv6/conf/all",
    "nft-bridge": "nft add table bridge probe && nft delete table bridge probe",
    # strace, and a plugin that works in the process that is called; server-crash kills the other
    "strace-on-plugins": f"strace -V >/dev/null && ! test -S {SOCKET}",
}


class Verdict(NamedTuple):
    """What became of an instance: `lines` are failures, or what is lacking."""

    instance: Instance
    outcome: str
    lines: list[str]
    seconds: float
    calls: list[Call]
    served: int  # by a resident process


class Runner:
    """Runs instances against one folder of plugins; may be used by several threads."""

    def __init__(self, bin_dir: Path, show: Callable[[World, Play], None] | None = None) -> None:
        self.bin_dir = bin_dir
        self.show = show
        self.worlds: set[World] = set()
        self.abandoned = False
        self.supported = cache(self._supported)
        self.has_feature = cache(self._has_feature)

    @contextmanager
    def world(self) -> Iterator[World]:
        """Make a world that `abandon` knows of."""
        with World(self.bin_dir) as world:
            self.worlds.add(world)
            try:
                if self.abandoned:  # it may have been while the world was being made
                    raise WorldError("the run was interrupted")
                yield world
            finally:
                self.worlds.discard(world)

    def abandon(self) -> None:
        """End every world with all that runs in it; nobody gets a new one."""
        self.abandoned = True
        for world in list(self.worlds):
            world.close()

    def verdict(self, instance: Instance) -> Verdict:
        """Run one instance."""
        start = time.monotonic()
        calls: list[Call] = []
        lacking = self.lacking(instance)
        if lacking:
            return Verdict(instance, LACKING, [lacking], 0.0, [], 0)
        with self.world() as world:
            play = Play(world, instance)
            try:
                play.run()
            except (AssertionError, KeyError, OSError, SubprocessError, WorldError) as error:
                play.failures.append(one_line(f"{type(error).__name__}: {error}"))
            calls = play.calls
            served = 0
            if world.resident is not None:
                served, lines = world.resident.account()
                play.failures += lines
            if self.show is not None:
                self.show(world, play)
        outcome = FAILED if play.failures else PASSED
        return Verdict(instance, outcome, play.failures, time.monotonic() - start, calls, served)

    def lacking(self, instance: Instance) -> str:
        """Say what the plugin or the kernel does not have; empty if nothing."""
        versions = self.supported(instance.plugin)
        if versions is None:
            return f"there is no plugin {instance.plugin} in {self.bin_dir}"
        case = instance.case
        if instance.version not in versions:
            return f"{instance.plugin} does not support version {instance.version}"
        for step in case.steps:
            verb = step.get("verb", "")
            if SINCE.get(verb, "0.1.0") not in {*versions, "0.1.0"}:
                return f"{instance.plugin} has no {verb}"
        if case.needs and not self.has_feature(case.needs):
            return f"there is no {case.needs} here"
        if case.lacks and self.has_feature(case.lacks):
            return f"there is {case.lacks} here"
        return ""

    def _supported(self, plugin: str) -> list[str] | None:
        """Ask a plugin for its versions; None if there is no such plugin.

        One that has no VERSION is of 0.1.0, as libcni takes it. One whose answer cannot be read is
        held to all of them: it fails, and is not passed over.
        """
        with self.world() as world:
            program = world.program(plugin)
            if not world.path(program).exists():
                return None
            environ = world.environment("VERSION", "", "", None)
            asked = '{"cniVersion":"1.0.0"}'
            try:
                done = world.run([program], asked, environ, check=False, timeout=TIME_LIMIT)
                document = json.loads(done.stdout)
                return list(document["supportedVersions"] if done.status == 0 else VERSIONS[:1])
            except (ValueError, KeyError, TypeError, TimeoutExpired):
                return list(VERSIONS)

    def _has_feature(self, name: str) -> bool:
        with self.world() as world:
            return world.run(["sh", "-c", FEATURES[name]], check=False).status == 0


def run_all(runner: Runner, instances: list[Instance], jobs: int) -> Iterator[Verdict]:
    """Run instances in threads; the verdicts come in the order of the instances."""
    with threads(jobs) as pool:
        futures = [pool.submit(runner.verdict, instance) for instance in instances]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            runner.abandon()
            raise


def replay(instance: Instance, bin_dir: Path) -> str:
    """Give the command that runs one instance alone and shows every call."""
    words = ["python", "-m", "conformance", "run", "--bin-dir", str(bin_dir)]
    words += ["--plugin", instance.plugin, "--spec", instance.version]
    return shlex.join([*words, "--case", instance.case.id, "--show"])


def show_calls(_world: World, play: Play) -> None:
    """Print a case's calls as shell commands with their answers."""
    case = play.instance.case
    print(f"# {play.instance.id}: {case.why}; its shell lines are in {case.id}.toml")
    for call in play.calls:
        environ = " ".join(f"{key}={shlex.quote(text)}" for key, text in call.environ.items())
        print(f"env -i {environ} {call.program} <<'EOF'")
        print(f"{call.stdin[:2000].decode(errors='backslashreplace')}\nEOF")
        print(f"# exit status {call.outcome.status}\n{call.outcome.stdout}")
        if call.outcome.stderr:
            print(f"# stderr: {call.outcome.stderr}")
    for line in play.failures:
        print(f"# FAILED {line}")


def keep(world: World, play: Play) -> None:
    """Print the calls, and hold the world until Enter is pressed."""
    show_calls(world, play)
    print(f"\nthe world is still there: {shlex.join([*world.enter, 'bash'])}", file=sys.stderr)
    try:
        input("Enter ends it ")
    except EOFError:
        print("no terminal: it ends at once", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Describe the options of `run`; `compare` shares most of them."""
    options = Parser(prog="python -m conformance run", description=__doc__)
    add_choice(options)
    options.add_argument("--report", choices=report.FORMATS, default="text")
    options.add_argument("--json", action="store_true", help="the same as --report json")
    options.add_argument("--show", action="store_true", help="print every call and its answer")
    options.add_argument("--keep", action="store_true", help="hold the world of a case open")
    return options


def add_choice(options: argparse.ArgumentParser) -> None:
    """Add the options that say what is run."""
    options.add_argument("--plugin", choices=PLUGINS, action="append", help="all by default")
    options.add_argument("--case", default="*", help="glob over the ids of cases")
    options.add_argument("--cases", type=Path, default=CASES, help="folder of cases")
    options.add_argument("--spec", default="", help="a version, or `all`; else each case's own")
    options.add_argument("--jobs", type=positive, default=len(os.sched_getaffinity(0)))


def chosen(args: argparse.Namespace) -> list[Instance]:
    """Give the instances that the options ask for; CaseError if there are none, or no plugins."""
    if not folder_of(args.bin_dir)[0].is_dir():
        raise CaseError(f"{args.bin_dir} is no folder: --bin-dir names the one of the plugins")
    if args.spec not in {"", "all", *VERSIONS}:
        raise CaseError(f"no version {args.spec!r}: there are {', '.join(VERSIONS)}, and all")
    found = spread(load(args.cases, args.case), args.plugin or list(PLUGINS), args.spec)
    if not found:
        raise CaseError(
            f"no case in {args.cases} matches {args.case!r}"
            + (f" and has version {args.spec}" if args.spec not in {"", "all"} else "")
        )
    return found


def main(argv: list[str]) -> int:
    """Run the verb; 0 if nothing failed."""
    args = parser().parse_args(argv)
    try:
        instances = chosen(args)
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    bin_dir = args.bin_dir
    hook = keep if args.keep else show_calls if args.show else None
    runner = Runner(bin_dir, hook)
    start = time.monotonic()
    verdicts = []
    for verdict in run_all(runner, instances, 1 if hook else args.jobs):
        verdicts.append(verdict)
        progress.show(f"{len(verdicts)}/{len(instances)} {verdict.instance.id}")
        if verdict.outcome == FAILED:
            progress.clear()
            complain(verdict, bin_dir)
    progress.clear()
    print(
        report.written(
            "json" if args.json else args.report, verdicts, bin_dir, time.monotonic() - start
        )
    )
    return int(any(verdict.outcome == FAILED for verdict in verdicts))


def complain(verdict: Verdict, bin_dir: Path) -> None:
    """Tell a failure as it happens: what was expected and seen, and how to see it again."""
    for line in verdict.lines:
        print(f"FAILED {verdict.instance.id}: {line}", file=sys.stderr)
    print(f"       {replay(verdict.instance, bin_dir)}", file=sys.stderr)

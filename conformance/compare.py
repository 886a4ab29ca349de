"""`python -m conformance compare`: the same cases on two folders of plugins, and where they differ.

Both play a case side by side, each in its own world, whatever the case expects. After each call the
answers, the kernel and the files are compared. A difference that differences.toml does not list,
with its reason, fails. `flannel` is held against the peer's `bridge` with the conf that it renders.
Once one side succeeds where the other fails, the rest of the case tells nothing: it ends there.
"""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conformance.case import USUAL_VERSION, CaseError
from conformance.command import threads
from conformance.normal import normal_answer, normal_state
from conformance.options import Parser
from conformance.runner import Runner, add_choice, chosen
from conformance.state import difference
from conformance.steps import Play
from conformance.world import GO_PLUGINS, World

if TYPE_CHECKING:
    from conformance.case import Instance

LISTED = Path(__file__).parent / "differences.toml"
CALL_LIMIT = 5.0
ENOUGH_PODS = 2  # one after the other, a third shows nothing new
FLANNEL_STATE = "/var/lib/cni/flannel"


class Reason(NamedTuple):
    """An entry of differences.toml: which lines of which cases, and why they may differ.

    `sometimes`: it is a race of the kernel's own, and need not be seen in every run.
    """

    case: str
    where: re.Pattern[str]
    reason: str
    sometimes: bool

    def covers(self, case_id: str, line: str) -> bool:
        """Whether a difference is this one."""
        return fnmatch.fnmatch(case_id, self.case) and bool(self.where.search(line))


class Comparison(NamedTuple):
    """What became of an instance: lines that differ, or why it could not be compared."""

    instance: Instance
    lines: list[str]
    skipped: str
    served: int = 0  # calls, by our resident process


def read_reasons(path: Path = LISTED) -> list[Reason]:
    """Read differences.toml."""
    entries = tomllib.loads(path.read_text("utf-8"))["difference"]
    return [
        Reason(
            entry.get("case", "*"),
            re.compile(entry["where"]),
            entry["reason"],
            entry.get("sometimes", False),
        )
        for entry in entries
    ]


class Pair:
    """One instance on both sides."""

    def __init__(self, instance: Instance, ours: World, peer: World) -> None:
        self.instance = instance
        self.plays = (Play(ours, instance), Play(peer, instance))
        # What the case itself asks for is no chance.
        self.asked = json.dumps([instance.case.conf, instance.case.steps]).lower()

    def run(self) -> list[str]:
        """Play all steps on both sides; lines such as `step2.host...: ours -> theirs`.

        A failed call has a `!` behind its step.
        """
        for play in self.plays:
            play.prepare()
        lines: list[str] = []
        for position, step in enumerate(self.instance.case.steps, 1):
            if "run" in step:
                for play in self.plays:
                    play.shell(step)
                continue
            for pod in step.get("pods", [step.get("pod", "a")])[:ENOUGH_PODS]:
                found, goes_on = self._step({**step, "seconds": CALL_LIMIT}, pod)
                failed = "!" if play_failed(self.plays[0]) else ""
                lines += [f"step{position}{failed}.{line}" for line in found]
                if not goes_on:
                    return lines
        return lines

    def _step(self, step: dict[str, Any], pod: str) -> tuple[list[str], bool]:
        ours, peer = self.plays
        before = self._rendered(step, pod)
        answers = [self._answer(ours, step, pod)]
        other = step
        if self.instance.plugin == "flannel":
            rendered = self._rendered(step, pod) or before
            if rendered is None:
                return [], False  # flannel itself has refused: there is no conf for a bridge
            if rendered.get("type") != "bridge":
                return [], False
            other = self._for_bridge(step, rendered, pod)
        answers.append(self._answer(peer, other, pod))
        lines = difference(answers[0], answers[1])
        if answers[0]["status"] != answers[1]["status"]:
            return [line for line in lines if line.startswith("status")], False
        states = [normal_state(play.world.state(), self.asked) for play in self.plays]
        return lines + difference(states[0], states[1]), True

    def _answer(self, play: Play, step: dict[str, Any], pod: str) -> dict[str, Any]:
        try:
            call = play.call(step, pod)
        except TimeoutError:
            return {"status": "no answer"}
        return normal_answer(call.outcome, self.asked, self._words(step))

    def _words(self, step: dict[str, Any]) -> str:
        """Give the words that the message of an error must have, on both sides."""
        message: str = step.get("expect", {}).get("error", {}).get("msg", "")
        return message.removeprefix("re:") if message.startswith("re:") else re.escape(message)

    def _rendered(self, step: dict[str, Any], pod: str) -> dict[str, Any] | None:
        """Read the delegate's conf that our flannel keeps for an attachment."""
        ours = self.plays[0]
        environ = ours.environment(step, pod)
        cid, ifname = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
        folder = step.get("conf", {}).get("dataDir", FLANNEL_STATE)
        name = cid if ifname == "eth0" else f"{cid}:{ifname}"
        file = ours.world.path(f"{folder}/{name}")
        try:
            if not file.is_file():  # a named pipe would never be read to its end
                return None
            found: dict[str, Any] = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def _for_bridge(
        self, step: dict[str, Any], rendered: dict[str, Any], pod: str
    ) -> dict[str, Any]:
        """Turn a step of flannel into one of the delegate that it calls."""
        play = self.plays[1]
        conf = dict(rendered)
        previous = play.previous(step, step["verb"], play.environment(step, pod))
        if previous is not None:
            conf["prevResult"] = previous
        kept = {key: value for key, value in step.items() if key not in {"conf", "prev", "stdin"}}
        return {**kept, "plugin": conf["type"], "stdin": json.dumps(conf)}


def play_failed(play: Play) -> bool:
    """Whether the last call of a side failed."""
    return bool(play.calls) and play.calls[-1].outcome.status != 0


def compare(runners: tuple[Runner, Runner], instance: Instance) -> Comparison:
    """Compare one instance; a plugin or feature that one side lacks is no difference."""
    for runner, plugin in zip(runners, (instance.plugin, peer_of(instance.plugin)), strict=True):
        lacking = runner.lacking(instance._replace(plugin=plugin))
        if lacking:
            return Comparison(instance, [], lacking)
    if peer_of(instance.plugin) != instance.plugin and calls_by_itself(instance):
        return Comparison(instance, [], f"the case calls {instance.plugin} by itself")
    with World(runners[0].bin_dir) as ours, World(runners[1].bin_dir) as peer:
        try:
            lines = Pair(instance, ours, peer).run()
        except (AssertionError, KeyError, OSError, subprocess.SubprocessError) as error:
            lines = [f"the comparison failed: {error!r}"]
        served, problems = ours.resident.account() if ours.resident else (0, [])
        return Comparison(instance, lines + problems, "", served)


def calls_by_itself(instance: Instance) -> bool:
    """Whether a shell line of the case calls the plugin, whose peer has another name and conf."""
    return any("$PLUGIN" in step.get("run", "") for step in instance.case.steps)


def one_version(instances: list[Instance]) -> list[Instance]:
    """Keep one version of each case and plugin: the newest that the peer is likely to know."""
    found: dict[tuple[str, str], Instance] = {}
    for instance in instances:
        key = instance.case.id, instance.plugin
        if key not in found or instance.version <= USUAL_VERSION:
            found[key] = instance
    return list(found.values())


def peer_of(plugin: str) -> str:
    """Name the plugin that one is held against."""
    return "bridge" if plugin == "flannel" else plugin


def main(argv: list[str]) -> int:
    """Run the verb; 0 if every difference is listed."""
    options = Parser(prog="python -m conformance compare", description=__doc__)
    add_choice(options)
    options.add_argument("--peer-dir", type=Path, default=Path(GO_PLUGINS))
    options.add_argument("--json", action="store_true", help="every difference, for programs")
    args = options.parse_args(argv)
    try:
        instances = chosen(args)
        if not args.spec:
            instances = one_version(instances)
    except CaseError as error:
        print(error, file=sys.stderr)
        return 2
    runners = (Runner(args.bin_dir), Runner(args.peer_dir.resolve()))
    with threads(args.jobs) as pool:
        done = list(pool.map(lambda instance: compare(runners, instance), instances))
    reasons = read_reasons()
    listed, unlisted = sort_out(done, reasons)
    whole = args.case == "*" and not args.plugin
    constant = [one.reason for one in reasons if not one.sometimes]
    stale = [reason for reason in constant if reason not in listed] if whole else []
    if args.json:
        print(json.dumps({"listed": listed, "unlisted": unlisted, "stale": stale}, indent=2))
    else:
        tell(done, listed, unlisted, stale)
    return int(bool(unlisted or stale))


def sort_out(
    done: list[Comparison], reasons: list[Reason]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Give the differences by reason, and by instance those that have none."""
    listed: dict[str, list[str]] = defaultdict(list)
    unlisted: dict[str, list[str]] = defaultdict(list)
    for comparison in done:
        name = comparison.instance.id
        for line in comparison.lines:
            case_id = comparison.instance.case.id
            reason = next((one.reason for one in reasons if one.covers(case_id, line)), "")
            (listed[reason] if reason else unlisted[name]).append(f"{name} {line}")
    return dict(listed), dict(unlisted)


def tell(
    done: list[Comparison],
    listed: dict[str, list[str]],
    unlisted: dict[str, list[str]],
    stale: list[str],
) -> None:
    """Print the table, and what fails."""
    print("| differences | cases | reason |\n|---|---|---|")
    for reason, lines in sorted(listed.items(), key=lambda item: -len(item[1])):
        cases = Counter(line.partition(":")[0] for line in lines)
        print(f"| {len(lines)} | {len(cases)} | {reason} |")
    for name, lines in unlisted.items():
        for line in lines:
            print(f"NOT LISTED {name} {line.partition(' ')[2][:400]}", file=sys.stderr)
    for reason in stale:
        print(f"STALE, nothing differs so any more: {reason}", file=sys.stderr)
    skipped = Counter(one.skipped for one in done if one.skipped)
    for why, count in skipped.most_common():
        print(f"not compared, {count}: {why}")
    compared = [one for one in done if not one.skipped]
    equal = sum(not one.lines for one in compared)
    served = sum(one.served for one in compared)
    print(
        f"compare: {len(compared)} runs on both, {equal} without any difference, "
        f"{sum(map(len, listed.values()))} differences listed with {len(listed)} reasons, "
        f"{sum(map(len, unlisted.values()))} not listed"
        f"{f'; {served} calls served by the resident process' if served else ''}"
    )

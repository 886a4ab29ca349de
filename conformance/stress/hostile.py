"""Names, paths and files that try to leave their directory, follow a link, or touch a host's link.

Each trick is played on a node with a physical interface, a foreign bridge, a second attachment and
files that are none of the plugin's business. The call is refused, or it succeeds without harm; and
when its attachment is gone again, nothing on the node has changed. The tricks are data: `tricks`.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from conformance.stress import pool
from conformance.stress.figure import Figure, Tally, options
from conformance.stress.scene import CONTAINER, POD, Scene
from conformance.stress.tricks import TRICKS
from conformance.stress.verdict import brief, complaints
from conformance.words import positive
from conformance.world import difference

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from conformance.stress.tricks import Trick
    from conformance.world import Outcome

DEADLINE_S = 20.0
_ALIVE = ("reachable", "stale", "delay", "probe")
_DECOYS = """
ip link add phys0 type veth peer name phys1
ip address add 192.0.2.1/24 dev phys0
ip link set phys0 up
ip link add other0 type bridge
ip address add 198.51.100.1/24 dev other0
ip link set other0 up
mkdir -p /run/decoy/folder
echo secret >/run/decoy/secret
echo one >/run/decoy/folder/one
echo two >/run/decoy/folder/cid:eth0
mkdir /run/decoy/netns; touch /run/decoy/netns/own
mount --bind /proc/self/ns/net /run/decoy/netns/own
"""


class Stage(Scene):
    """A scene with decoys."""

    def __init__(self, bin_dir: Path) -> None:
        super().__init__(bin_dir, "v4-neighbour")
        self.world.run(["sh", "-ec", _DECOYS])


def play(stage: Stage, trick: Trick) -> Tally:
    """Play one trick; what was wrong."""
    counts = {"tricks": 1}
    try:
        problems = _play(stage, trick, counts)
    except subprocess.TimeoutExpired as error:
        problems = [f"no end after {error.timeout:g} s"]
    stage.world.run(["sh", "-c", "rm -rf /run/trick"], check=False)
    if problems or trick.plant:
        stage.restart()
    return Tally(counts, [f"{trick.name}: {problem}" for problem in problems])


def _play(stage: Stage, trick: Trick, counts: dict[str, int]) -> list[str]:
    if trick.attached and stage.call("ADD").status != 0:
        return ["the ADD before failed"]
    if trick.plant:
        stage.world.run(["sh", "-ec", trick.plant])
    before = _seen(stage)
    done = _call(stage, trick)
    problems = complaints(done)
    counts["refused" if done.status else "harmless"] = 1
    if trick.refused and done.status == 0:
        problems.append("not refused")
    if trick.refused and trick.code and json.loads(done.stdout or "{}").get("code") != trick.code:
        problems.append(f"code {trick.code} expected: {brief(done)}")
    if not trick.refused and not trick.attached:
        stage.call("DEL")
    changed = [line for line in difference(before, _seen(stage)) if not _expected(line, trick)]
    if changed:
        problems += [*changed, f"the call said {brief(done)}"]
    return problems


def _call(stage: Stage, trick: Trick) -> Outcome:
    """Call with the trick's environment and conf in place of the usual ones."""
    environ = stage.world.environment(trick.verb, CONTAINER, "eth0", f"/run/netns/{POD}")
    environ |= trick.env
    return stage.world.run(
        [stage.world.program("flannel")],
        json.dumps(merged(stage.conf, trick.conf)),
        environ,
        check=False,
        timeout=DEADLINE_S,
    )


def merged(conf: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A conf with changes; objects are merged, everything else replaced."""
    result = dict(conf)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(dict(old or {}), value) if both else value
    return result


def _seen(stage: Stage) -> dict[str, Any]:
    """The world's state without what every call of the network changes, rightly."""
    state = stage.world.state()
    for space in (state["host"], *state["pods"].values()):
        for entry in space["neighbours"]:
            entry["state"] = "there" if entry["state"] in _ALIVE else entry["state"]
    for path in list(state["files"]):
        if path.rpartition("/")[2].startswith(("last_reserved_ip.", "lock")):
            del state["files"][path]
    return state


def _expected(line: str, trick: Trick) -> bool:
    """Whether a change is the attachment's own: its DEL has been the trick."""
    return any(line.startswith(prefix) or prefix in line for prefix in trick.may_change)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("hostile", __doc__ or "")
    parser.add_argument("--trick", help="only those whose name holds this text")
    parser.add_argument("--every", type=positive, default=1, help="only every K-th trick")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("hostile", ("tricks", "refused", "harmless"), as_json=args.json)
    todo = [trick for trick in TRICKS if not args.trick or args.trick in trick.name][:: args.every]
    for tally in pool.spread(args.jobs, Stage, (args.bin_dir,), play, todo):
        figure.add(tally)
        figure.progress(f"{figure.counts['tricks']} of {len(todo)}")
    return figure.finish()

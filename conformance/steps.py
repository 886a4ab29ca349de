"""One case in one world: what is given is made, the steps are called, what was seen is compared.

A step's `verb` is called for `pod` "a", container ID `cid-a` and `eth0` unless it says otherwise.
`prev` is the result of the last ADD of that attachment where a runtime would send it (CHECK; DEL
from 0.4.0 on), or of a named step, or a table, or "absent"; `amend` changes some places of it.
`stdin` replaces the conf: text, or a list of text, [text, times] and {hex = ".."}. With `pods`, the
verb is called for all of them at the same time.
"""

from __future__ import annotations

import copy
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from conformance import results
from conformance.case import conf_of, number
from conformance.expect import dig, mismatches
from conformance.given import make_given, raw_bytes
from conformance.state import difference
from conformance.traces import remains, unchanging

if TYPE_CHECKING:
    from conformance.case import Instance
    from conformance.world import Outcome, World

TIME_LIMIT = 30.0
SETTLE_LIMIT = 2.0


class Call(NamedTuple):
    """One call of a plugin: its program, whole environment, stdin, and what it left."""

    program: str
    environ: dict[str, str]
    stdin: bytes
    outcome: Outcome


class Play:
    """A case being run: `failures` are lines, `calls` everything that was called, in order."""

    def __init__(self, world: World, instance: Instance) -> None:
        self.world = world
        self.instance = instance
        self.failures: list[str] = []
        self.calls: list[Call] = []
        self.seen: dict[str, Any] = {"asked": instance.version}  # and step1, step2...: for same-as
        self.results: dict[tuple[str, str], dict[str, Any]] = {}  # (cid, ifname) -> raw ADD result

    def run(self) -> None:
        """Run all steps; stops at the first whose expectations fail."""
        make_given(self.world, self.instance)
        steps = self.instance.case.steps
        cleaning = any(step.get("expect", {}).get("clean") for step in steps)
        self.start = self.world.state() if cleaning else {}
        for position, step in enumerate(steps, 1):
            if self.instance.version not in step.get("versions", [self.instance.version]):
                continue
            lines = self._step(step, f"step{position}")
            what = one_line(step.get("verb", step.get("run", "")), 40)
            self.failures += [f"step {position} ({what}): {one_line(line)}" for line in lines]
            if self.failures:
                return

    def _step(self, step: dict[str, Any], name: str) -> list[str]:
        expect = step.get("expect", {})
        if "run" in step:
            return self._check_shell(step, name, expect)
        before = self.world.state() if expect.get("unchanged") else {}
        pods = step.get("pods", [step.get("pod", "a")])
        with ThreadPoolExecutor(len(pods)) as threads:
            calls = list(threads.map(lambda pod: self.call(step, pod), pods))
        lines = []
        views = []
        for pod, call in zip(pods, calls, strict=True):
            view, more = self._view(step, pod, call)
            views.append(view)
            lines += more
            self.seen[name] = view
            lines += mismatches(answers_of(expect), view, self.seen)
        if "distinct" in expect and not lines:
            values = [dig(view, expect["distinct"]) for view in views]
            if len(set(map(str, values))) != len(values):
                lines.append(f"{expect['distinct']}: expected to differ, seen {values!r}")
        return lines or self._state(expect, name, pods[-1], before)

    def prepare(self) -> None:
        """Make what the case takes for granted."""
        make_given(self.world, self.instance)

    def shell(self, step: dict[str, Any]) -> Outcome | None:
        """Run a step's shell line; None for one in the background."""
        program = self.world.program(self.instance.plugin)
        argv = ["env", f"PLUGIN={program}", "sh", "-ec", step["run"]]
        if step.get("background"):
            nothing = subprocess.DEVNULL
            self.world.popen(argv, stdin=nothing, stdout=nothing, stderr=nothing)
            return None
        return self.world.run(argv, check=False, timeout=TIME_LIMIT)

    def _check_shell(self, step: dict[str, Any], name: str, expect: dict[str, Any]) -> list[str]:
        done = self.shell(step)
        if done is None:
            return []
        if done.status != expect.get("status", 0):
            said = (
                f"status {done.status}: {done.stderr.strip()[-400:]} {done.stdout.strip()[-400:]}"
            )
            return [f"the test's own line failed, {said}"]
        self.seen[name] = {"stdout": done.stdout, "stderr": done.stderr}
        wanted = {key: expect[key] for key in ("stdout", "stderr") if key in expect}
        lines = mismatches(wanted, self.seen[name], self.seen)
        return lines or self._state(expect, name, step.get("pod", "a"), {})

    # ---------------------------------------------------------------------------------------- calls

    def call(self, step: dict[str, Any], pod: str) -> Call:
        """Call the step's verb for one pod; TimeoutError if it does not end."""
        verb = step["verb"]
        environ = self.environment(step, pod)
        stdin = self._stdin(step, verb, environ)
        program = self.world.program(step.get("plugin", self.instance.plugin))
        try:
            outcome = self.world.run(
                [program], stdin, environ, check=False, timeout=step.get("seconds", TIME_LIMIT)
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{verb} did not end within {TIME_LIMIT:.0f} s") from None
        call = Call(program, environ, stdin, outcome)
        self.calls.append(call)
        if verb == "ADD" and outcome.status == 0:
            self._remember(environ, outcome.stdout)
        return call

    def _remember(self, environ: dict[str, str], stdout: str) -> None:
        """Keep the result of an ADD, as a runtime does."""
        try:
            document = json.loads(stdout)
        except ValueError:
            return
        if isinstance(document, dict):
            key = environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", "")
            self.results[key] = document

    def environment(self, step: dict[str, Any], pod: str) -> dict[str, str]:
        """Environment of a step; `env` adds, or takes away with "absent"."""
        netns = step.get("netns", f"/run/netns/{pod}")
        environ = self.world.environment(
            step["verb"],
            step.get("cid", f"cid-{pod}"),
            step.get("ifname", "eth0"),
            None if netns == "absent" else netns,
        )
        if step["verb"] in {"GC", "STATUS", "VERSION"}:
            for key in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"):
                del environ[key]
        for key, value in step.get("env", {}).items():
            environ.pop(key, None)
            if value != "absent":
                environ[key] = value
        return environ

    def _stdin(self, step: dict[str, Any], verb: str, environ: dict[str, str]) -> bytes:
        if "stdin" in step:
            return raw_bytes(step["stdin"])
        conf = conf_of(self.instance, step)
        if verb == "VERSION":
            conf = {"cniVersion": conf["cniVersion"]}
        if verb == "GC" and "valid" in step:
            conf["cni.dev/valid-attachments"] = [
                {"containerID": cid, "ifname": ifname} for cid, ifname in step["valid"]
            ]
        previous = self.previous(step, verb, environ)
        if previous is not None:
            conf["prevResult"] = amended(previous, step.get("amend", {}))
        return json.dumps(conf).encode()

    def previous(
        self, step: dict[str, Any], verb: str, environ: dict[str, str]
    ) -> dict[str, Any] | None:
        """Give the prevResult of a step, or None."""
        wanted = step.get("prev")
        if wanted == "absent":
            return None
        if isinstance(wanted, dict):
            return {**wanted, "cniVersion": self.instance.version}
        if wanted is not None:
            found: dict[str, Any] = self.seen[wanted]["stdout"]
            return found
        if verb == "CHECK" or (verb == "DEL" and number(self.instance.version) >= (0, 4, 0)):
            key = (environ.get("CNI_CONTAINERID", ""), environ.get("CNI_IFNAME", ""))
            return self.results.get(key)
        return None

    # ------------------------------------------------------------------------------ what is seen

    def _view(self, step: dict[str, Any], pod: str, call: Call) -> tuple[dict[str, Any], list[str]]:
        """Turn an outcome into what cases ask for; lines say what no plugin may ever do."""
        outcome = call.outcome
        view: dict[str, Any] = {"status": outcome.status, "stderr": outcome.stderr}
        lines = []
        try:
            view["stdout"] = json.loads(outcome.stdout) if outcome.stdout.strip() else ""
        except ValueError:
            view["stdout"] = outcome.stdout
            if step["verb"] in {"ADD", "VERSION"} or outcome.status:
                lines.append(f"stdout is not one JSON document: {outcome.stdout[:300]!r}")
        document = view["stdout"]
        wanted = step.get("expect", {})
        if outcome.status == 0:
            if wanted.get("status", 1 if "error" in wanted else 0) in (0, "any"):
                lines += results.rules(step["verb"], document, self.instance.version, step)
            if step["verb"] == "ADD" and isinstance(document, dict):
                view["result"] = results.neutral(document)
        elif isinstance(document, dict):
            view["error"] = document
        status = wanted.get("status", 1 if "error" in wanted else 0)
        if status not in (outcome.status, "any"):
            say = outcome.stdout.strip() or outcome.stderr.strip()[-300:]
            lines.append(
                f"exit status of pod {pod}: expected {status}, seen {outcome.status}: {say}"
            )
        return view, lines

    def _state(
        self, expect: dict[str, Any], name: str, pod: str, before: dict[str, Any]
    ) -> list[str]:
        """Compare kernel and files, which are read only if the step asks for them."""
        asked = {"host", "pod", "rules", "files", "unchanged", "clean"} & set(expect)
        if not asked:
            return []
        state = self.world.state()
        view = {
            "host": state["host"],
            "pod": state["pods"].get(pod, {}),
            "rules": state["rules"],
            "files": with_folders(state["files"], expect.get("files", {})),
        }
        self.seen.setdefault(name, {}).update(view)
        wanted = {key: expect[key] for key in view if key in expect}
        lines = mismatches(wanted, view, self.seen)
        if expect.get("unchanged"):
            changes = difference(unchanging(before), unchanging(state))
            lines += [f"changed by a call that must change nothing: {line}" for line in changes]
        if expect.get("clean"):
            lines += [f"left: {line}" for line in self._remains(state)]
        return lines

    def _remains(self, state: dict[str, Any]) -> list[str]:
        """List what attachments have left; a namespace's links go in the kernel's own time."""
        words = {call.environ.get("CNI_CONTAINERID", "") for call in self.calls} - {""}
        end = time.monotonic() + SETTLE_LIMIT
        while (found := remains(self.start, state, words)) and time.monotonic() < end:
            time.sleep(0.05)
            state = self.world.state()
        return found


def one_line(text: str, most: int = 900) -> str:
    """Put a text on one line, its end cut off where it is too long to be read."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def amended(result: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Give a result as a later plugin of the chain would have it.

    Changes are {"interfaces.2.mac" = ..}, or {"ips.+" = ..} to add an item.
    """
    changed = copy.deepcopy(result)
    for path, value in changes.items():
        way, _, key = path.rpartition(".")
        if key == "+":
            dig(changed, way).append(value)
        else:
            dig(changed, way)[key] = value
    return changed


def answers_of(expect: dict[str, Any]) -> dict[str, Any]:
    """Give the part of the expectations that is about the answer."""
    return {key: expect[key] for key in ("result", "stdout", "stderr", "error") if key in expect}


def with_folders(files: dict[str, str], asked: dict[str, Any]) -> dict[str, Any]:
    """Add, for each asked key that ends in a slash, the names of the files below it."""
    folders = {
        folder: sorted(name.removeprefix(folder) for name in files if name.startswith(folder))
        for folder in asked
        if folder.endswith("/")
    }
    return {**files, **folders}

"""`python -m conformance VERB`: the verbs as a table; each is a module with `main(argv) -> int`.

A verb's module is imported when it is called. Without root, the whole tool runs itself again as
root of a user namespace of its own, where it may make network and mount namespaces.
"""

from __future__ import annotations

import importlib
import os
import sys
from difflib import get_close_matches

from conformance.command import run_command

# verb -> (module, what it does in one line)
VERBS = {
    "run": ("conformance.runner", "every case against the plugins of a folder"),
    "compare": ("conformance.compare", "the same cases on two folders, and where they differ"),
    "coverage": ("conformance.coverage", "docs/spec-coverage.md, clause by clause"),
    "runtime": ("conformance.runtime", "conflists and chains as libcni runs them"),
    "containerd": ("conformance.real.containerd", "a real containerd with runc"),
    "podman": ("conformance.real.podman", "podman with its CNI backend"),
    "crash": ("conformance.stress.crash", "SIGKILL at every system call"),
    "fault": ("conformance.stress.fault", "errors injected at file and netlink calls"),
    "storm": ("conformance.stress.storm", "many attachments at once, verbs mixed"),
    "soak": ("conformance.stress.soak", "thousands of ADD and DEL, everything counted"),
    "fuzz": ("conformance.stress.fuzz", "random environment, stdin and files"),
    "hostile": ("conformance.stress.hostile", "names and files that try to get out"),
    "server-crash": ("conformance.server.crash", "the resident process killed at system calls"),
    "server-hostile": ("conformance.server.hostile", "clients that are no launchers"),
    "server-kills": ("conformance.server.kills", "it and launchers killed at random"),
    "server-soak": ("conformance.server.soak", "very many calls; it must not grow"),
    "server-trouble": ("conformance.server.trouble", "it is gone, stopped or somebody else"),
}

PACKAGES = (
    "this Python lacks the tool's packages;"
    " `./build.sh test --co -q` makes .venv, then run .venv/bin/python -m conformance"
)


def usage() -> str:
    """Give the text of --help."""
    lines = ["usage: python -m conformance VERB [--bin-dir DIR] [OPTION...]", ""]
    lines += [f"  {verb:<11} {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join([*lines, "", "python -m conformance VERB --help shows a verb's options."])


def main(argv: list[str]) -> int:
    """Call one verb; the exit status: 0 everything held, 1 something did not, 2 misuse."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in VERBS:
        near = get_close_matches(argv[0], VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else "--help lists them"
        print(f"python -m conformance: no verb is called {argv[0]!r}: {hint}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        again = [
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            sys.executable,
            "-m",
            "conformance",
            *argv,
        ]
        os.execvp(again[0], again)
    try:
        module = importlib.import_module(VERBS[argv[0]][0])
    except ModuleNotFoundError as error:
        print(f"{error}: {PACKAGES}", file=sys.stderr)
        return 2
    return int(module.main(argv[1:]))


if __name__ == "__main__":
    run_command(" ".join(sys.argv[1:2]), lambda: main(sys.argv[1:]))

"""`python -m tests.kube`, which `./build.sh cluster` calls."""

from __future__ import annotations

import sys

from conformance.command import run_command
from tests.kube import demo
from tests.kube.words import parse

if __name__ == "__main__":
    run_command("cluster", lambda: demo.show(parse(sys.argv[1:])))

"""The words of `./build.sh cluster`: what they may be.

`python -m tests.kube.words ...` looks at them alone: before anything is installed or built for
words that cannot be done.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from conformance.words import Words
from tests.lab.words import nodes

if TYPE_CHECKING:
    import argparse


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the words; those that cannot be done end the process."""
    parser = Words(
        prog="./build.sh cluster",
        description="A real Kubernetes, its nodes in namespaces, and pods that reach each other.",
    )
    parser.add_argument("--nodes", type=nodes, default=3, metavar="N", help="3 by default")
    parser.add_argument("--families", choices=("4", "46"), default="4")
    parser.add_argument("--backend", choices=("vxlan", "host-gw", "udp"), default="vxlan")
    parser.add_argument("--stay", action="store_true", help="keep the cluster until Ctrl-C")
    words = parser.parse_args(argv)
    if words.backend == "udp" and words.families != "4":
        parser.error("--backend udp carries IPv4 alone: --families 4")
    return words


if __name__ == "__main__":
    parse(sys.argv[1:])

"""The words of `./build.sh lab` and `./build.sh demo --nodes N`: what they may be.

`python -m tests.lab.words ...` looks at them alone: before anything is installed or built for
words that cannot be done.
"""

from __future__ import annotations

import argparse
import sys

from conformance.words import Words, positive

VERBS = {
    "reach": "every pod to every pod, 1 MB over TCP, and to the world",
    "heal": "take parts of the data plane away, one after the other",
    "restart": "kill the daemon and start it again, under traffic",
    "cut": "take etcd away for a time, and let a peer change while the watch is cut",
    "join": "start many daemons at once",
    "scale": "put many leases into etcd at once",
    "migrate": "change the backend node by node, under traffic",
    "mixed": "a node as the Go daemon makes it, in one network with ours",
    "demo": "nodes, each with a daemon, and pods that reach each other",
}
MOST_NODES = 200  # the underlay is a /24


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the words; those that cannot be done end the process."""
    made = Words(
        prog="./build.sh demo" if argv[:1] == ["demo"] else "./build.sh lab",
        description="Measure the daemon on nodes in network namespaces: all of it, or a verb.",
    )
    verbs = made.add_subparsers(dest="verb", metavar="VERB")
    for name, text in VERBS.items():
        program = "./build.sh demo" if name == "demo" else f"./build.sh lab {name}"
        verb = verbs.add_parser(name, help=text, prog=program)
        verb.add_argument("--backend", choices=("vxlan", "host-gw", "udp"), default="vxlan")
        verb.add_argument("--families", choices=("4", "6", "46"), default="4")
        verb.add_argument("--nodes", type=nodes, metavar="N")
        for option in ("--times", "--seconds", "--leases"):
            verb.add_argument(option, type=positive, metavar="N")
    return made.parse_args(argv)


def nodes(text: str) -> int:
    """A number of nodes."""
    if positive(text) > MOST_NODES:
        raise argparse.ArgumentTypeError(
            f"{text} is more than the {MOST_NODES} that there is room for"
        )
    return int(text)


if __name__ == "__main__":
    parse(sys.argv[1:])

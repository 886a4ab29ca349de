"""`python -m tests.kube`: a real Kubernetes, its nodes, and pods that reach each other."""

from __future__ import annotations

import argparse
import sys

from tests.kube import demo


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="./build.sh cluster", description=__doc__)
    made.add_argument("--nodes", type=int, default=3, metavar="N")
    made.add_argument("--families", choices=("4", "46"), default="4")
    made.add_argument("--backend", choices=("vxlan", "host-gw", "udp"), default="vxlan")
    made.add_argument("--stay", action="store_true", help="keep the cluster until Ctrl-C")
    return made


if __name__ == "__main__":
    sys.exit(demo.show(parser().parse_args()))

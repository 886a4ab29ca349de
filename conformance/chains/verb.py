"""`python -m conformance runtime`: chained plugins as a runtime calls them, with real traffic.

Three lists: kube-flannel's own (0.3.1, flannel and portmap), and flannel, portmap, bandwidth,
tuning and firewall as 1.0.0 and as 1.1.0. Debian's plugins know 1.0.0 at most: in the
1.1.0 list those that do not know it stand behind a shim that translates the version (shim.py), and
have no GC and no STATUS; in the 1.0.0 list every plugin is called as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.chains.node import Node, conflist, missing_in_kernel
from conformance.chains.scenarios import run_failures, run_garbage, run_traffic, settle
from conformance.conflist import UnsupportedError, number
from conformance.runtime import PluginError
from conformance.stress.figure import Figure, options

if TYPE_CHECKING:
    from argparse import Namespace

VERSIONS = {"0.3.1": True, "1.0.0": False, "1.1.0": True}  # version -> with both families


def main(argv: list[str]) -> int:
    """Run every scenario with every list."""
    parser = options("runtime", "conflists and chains as libcni runs them, with real traffic")
    parser.add_argument("--plugin", default="flannel", choices=("flannel", "bridge"))
    parser.add_argument("--spec", action="append", choices=VERSIONS, help="only these lists")
    parser.add_argument("--quick", action="store_true", help="each plugin fails at one DEL only")
    chosen = parser.parse_args(argv)
    names = ("attachments", "connections", "checks", "failed once", "collections", "leftovers")
    figure = Figure("runtime", names, as_json=chosen.json)
    missing = missing_in_kernel()
    for plugin, lacking in missing.items():
        figure.note(f"kernel lacks {lacking}: {plugin} is left out")
    for version in chosen.spec or VERSIONS:
        try:
            _run(chosen, version, list(missing), figure)
        except (PluginError, UnsupportedError, AssertionError, OSError) as error:
            figure.fail(f"{version}: {type(error).__name__}: {error}")
    return figure.finish()


def _run(chosen: Namespace, version: str, without: list[str], figure: Figure) -> None:
    """Run the scenarios with one list, each from a clean node."""
    dual, plugin = VERSIONS[version], chosen.plugin
    listed = conflist(version, plugin, without, dual=dual)
    with Node(chosen.bin_dir, listed, dual=dual) as node:
        if node.translated:
            figure.note(f"{version}: translated for {', '.join(node.translated)}")
        normal = settle(node, figure)
        run_traffic(node, figure, normal)
        run_failures(node, figure, normal, quick=chosen.quick)
        if number(version) >= number("1.1.0") and plugin not in node.translated:
            run_garbage(node, figure, normal)
        figure.account(node.world)

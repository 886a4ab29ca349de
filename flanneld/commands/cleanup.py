"""``flanneld cleanup``: remove every trace of the daemon from this node.

What is removed is provably a flannel's: rules by their chains and tables, devices by their alias
or by name, VNI and address, routes by our protocol number. What another daemon of this node has for
another network stays. So do the plugins' bridge and pods; the lease, in the store until it expires,
in a local store for ever; and the lock's empty file: to unlink it would let two daemons hold it.
With ``--host`` what a DaemonSet has put on the node goes, too, the runtime's conflist first: from
then on the node says that it is not ready, and gets no pods.
"""

from __future__ import annotations

import asyncio
import glob
import os
import signal
from ipaddress import ip_network
from typing import TYPE_CHECKING

from flanneld import beside, conflist, files, liveness, record, state, subnet_env
from flanneld.commands import arguments
from flanneld.desired import Desired
from flanneld.installation.errors import InstallError
from flanneld.installation.pair import FOLDER, Pair
from flanneld.kernel.reconciler import Reconciler
from flanneld.rules.manager import Rules
from flanneld.rules.programs import RulesError
from flanneld.state import StateError

if TYPE_CHECKING:
    import argparse
    import socket
    from collections.abc import Iterator

    from flanneld.desired import AnyNetwork
    from flanneld.kernel.reconciler import Report

EVERYTHING = frozenset(map(ip_network, ("0.0.0.0/0", "::/0")))


async def run(argv: list[str]) -> int:
    """Remove, and print what was removed; 0 if nothing is left, 1 if something is, 2 if refused."""
    wanted = _parser().parse_args(argv)
    try:
        with files.lock(state.lock_path(wanted.subnet_file)):
            networks = EVERYTHING if wanted.all else _networks(wanted.subnet_file)
            names = _alone(networks)
            is_gone = not wanted.host or _remove_from_host(wanted)
            removed, left = await _remove(networks)
            removed += _unlink(_files(wanted.subnet_file, wanted.data_dir))
            for name in names:
                name.close()
    except files.Locked as error:
        return arguments.fail("cleanup", StateError(f"flanneld runs: stop it first ({error})"))
    except (StateError, OSError) as error:
        return arguments.fail("cleanup", error)
    arguments.show([*(f"removed {one}" for one in removed), *(f"left {one}" for one in left)])
    if left or not is_gone:
        return 1
    if wanted.stay:
        await _stay()
    return 0


def _parser() -> argparse.ArgumentParser:
    made = arguments.parser(
        "cleanup",
        "Remove every trace of the daemon from this node: rules, devices, routes, its files.",
        "0 nothing is left, 1 something could not be removed, 2 nothing was tried",
    )
    made.add_argument("--data-dir", default=arguments.default_of("data-dir"), metavar="PATH")
    made.add_argument(
        "--all", action="store_true", help="of all networks that a flannel ever had on this node"
    )
    made.add_argument(
        "--host", action="store_true", help="first the runtime's conflist; and the plugins"
    )
    made.add_argument("--cni-conflist", default=conflist.PLACE, metavar="PATH")
    made.add_argument("--cni-bin-dir", default=FOLDER, metavar="DIR")
    made.add_argument(
        "--stay", action="store_true", help="wait for SIGTERM when it is done, as a DaemonSet's pod"
    )
    return made


async def _stay() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


def _remove_from_host(wanted: argparse.Namespace) -> bool:
    """Remove what an installation has put on the node, and say so; whether nothing is left."""
    said = [
        f"removed {one}" for one in _unlink(conflist.ours(wanted.cni_conflist, wanted.subnet_file))
    ]
    try:
        is_gone = Pair(wanted.cni_bin_dir, "", said.append).uninstall(units=False)
    except InstallError as error:
        said.append(f"left the plugins: {error}")
        is_gone = False
    arguments.show(said)
    return is_gone


def _networks(subnet_file: str) -> frozenset[AnyNetwork]:
    """Find the networks of the daemon that wrote this file; StateError if nothing tells."""
    networks = set(subnet_env.previous(subnet_file).networks)
    try:
        known = state.load(subnet_file)
    except StateError:
        if networks:
            return frozenset(networks)
        raise StateError(
            f"neither {subnet_file} nor a state beside it exists: nothing says which network was"
            " this node's; --all removes what any flannel left"
        ) from None
    return frozenset(networks | {net for net in (known.conf.network, known.conf.network6) if net})


def _alone(networks: frozenset[AnyNetwork]) -> list[socket.socket]:
    """Keep out daemons of these networks; Locked if there is one, or one that may be."""
    for other in beside.others():
        theirs = [ip_network(network) for network in other.networks]
        if not theirs or any(one.overlaps(net) for one in networks for net in theirs):
            raise files.Locked(str(other))
    return beside.hold(networks)


async def _remove(networks: frozenset[AnyNetwork]) -> tuple[list[str], list[str]]:
    """Remove from the kernel; what was removed, and what is left and why."""
    removed: list[str] = []
    left: list[str] = []
    try:
        removed += await Rules([], nftables=False, previous=networks).remove()
    except RulesError as error:
        left.append(str(error))
    reconciler = Reconciler()
    try:
        report: Report = await reconciler.apply(Desired(networks=networks))
    finally:
        reconciler.close()
    removed += (str(change.value) for change in report.changes)
    left += report.problems
    return removed, left


def _files(subnet_file: str, data_dir: str) -> Iterator[str]:
    for path in (state.path(subnet_file), subnet_file):
        yield path
        yield from files.unfinished(path)
    yield liveness.path(subnet_file)
    for kind in ("last", "kube"):
        kept = record.path(data_dir, subnet_file, kind)
        yield kept
        yield from files.unfinished(kept)
    for name in ("flannel*", ".flannel*"):  # the latter are unfinished
        yield from sorted(glob.glob(os.path.join(glob.escape(data_dir), "mac", name)))


def _unlink(paths: Iterator[str]) -> list[str]:
    removed = []
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        removed.append(path)
    return removed

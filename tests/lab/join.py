"""Many daemons that start at the same moment, and many leases that are there at once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.flanneld.etcdserver import PREFIX
from tests.lab.golang import value

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster
    from tests.lab.node import Node

_OPERATIONS = 128  # that etcd takes in one transaction
BIG_NETWORK = "10.0.0.0/8"


def join(cluster: Cluster, count: int) -> float:
    """Start so many daemons at once; the seconds until each is ready and knows all others."""
    nodes = [cluster.add_node() for _ in range(count)]
    start = time.monotonic()
    for node in nodes:
        node.start_daemon()
    cluster.settle()
    seconds = time.monotonic() - start
    subnets = {node.subnet_env()["FLANNEL_SUBNET"] for node in nodes}
    assert len(subnets) == count, subnets
    return seconds


class Scale(NamedTuple):
    """What leases of other nodes cost one daemon."""

    leases: int
    seconds: float  # from the first of them in etcd until all are programmed
    load_seconds: float  # of those, etcd's own for writing them
    cpu_seconds: float
    restart_cpu_seconds: float  # of a new daemon that finds them in etcd and in the kernel
    removal_cpu_seconds: float  # when all go
    peak_mib: float


def scale(cluster: Cluster, leases: int) -> Scale:
    """Put so many leases of BIG_NETWORK into etcd; the only daemon programs them all."""
    (node,) = cluster.nodes
    daemon = node.daemon
    assert daemon is not None
    idle, start = daemon.cpu_seconds(), time.monotonic()
    _put(cluster, leases)
    loaded = time.monotonic()
    node.await_peers(leases)
    programmed = time.monotonic()
    _check(node, leases)
    cpu, peak = daemon.cpu_seconds() - idle, daemon.peak_mib()
    node.stop_daemon()
    again = node.start_daemon()
    node.await_ready()
    _check(node, leases)
    restarted = again.cpu_seconds()
    cluster.etcd.ctl("del", f"{PREFIX}/subnets/10.128", f"{PREFIX}/subnets/10.2")
    node.await_peers(0)
    _check(node, 0)
    return Scale(
        leases,
        programmed - start,
        loaded - start,
        cpu,
        restarted,
        again.cpu_seconds() - restarted,
        max(peak, again.peak_mib()),
    )


def _put(cluster: Cluster, leases: int) -> None:
    """Write leases as a Go node does, in transactions as large as etcd takes."""
    commands = []
    for number in range(leases):
        high, low = divmod(number, 256)
        text = value(f"172.16.{high}.{low}", f"02:00:00:01:{high:02x}:{low:02x}")
        key = f"{PREFIX}/subnets/10.{128 + high}.{low}.0-24"
        commands.append(f"put {key} {json.dumps(text)}")
    for first in range(0, leases, _OPERATIONS):
        lines = "\n".join(commands[first : first + _OPERATIONS])
        cluster.etcd.ctl("txn", text=f"\n{lines}\n\n\n")


def _check(node: Node, count: int) -> None:
    """See with iproute2 that the kernel holds a route, a neighbour and an FDB entry of each."""
    routes = len(node.ip("route", "show", "dev", "flannel.1"))
    neighbours = len(node.ip("neighbour", "show", "dev", "flannel.1", "nud", "permanent"))
    fdb = len(
        json.loads(node.run("bridge", "-j", "fdb", "show", "dev", "flannel.1").stdout or "[]")
    )
    assert (routes, neighbours, fdb) == (count, count, count)

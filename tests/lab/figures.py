"""What the lab measures, as rows of a table: each verb makes its clusters and gives its figures.

Whatever does not hold is an AssertionError or a LabError; a figure is only given of what holds.
"""

from __future__ import annotations

import signal
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.lab import healing, join, migration, outage, restart, traffic
from tests.lab.cluster import Cluster, configuration
from tests.lab.golang import add_go_node

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


class Row(NamedTuple):
    """A line of the table, without its command."""

    what: str
    figure: str


@contextmanager
def cluster_of(args: argparse.Namespace, nodes: int, **conf: Any) -> Iterator[Cluster]:
    """Start a cluster with the asked-for backend and families."""
    with Cluster({**configuration(args.backend, args.families), **conf}) as cluster:
        yield cluster.start(nodes)


def reach(args: argparse.Namespace) -> Iterator[Row]:
    """Every pod to every pod, 1 MB over TCP, and to the world."""
    with cluster_of(args, args.nodes or 3) as cluster:
        trips = traffic.trips(cluster)
        assert not any(trip.error for trip in trips), [str(trip) for trip in trips if trip.error]
        between = [trip.seconds for trip in trips if trip.source.node != trip.target.node]
        median = statistics.median(between) * 1000
        yield Row(f"1 MB between pods of two nodes, median of {len(between)}", f"{median:.1f} ms")
        for pod in cluster.pods:
            for family in cluster.families:
                outside = cluster.underlay.netns
                seen = traffic.source_seen(pod.netns, outside, traffic.world(family))
                assert seen in {pod.node.address, pod.node.address6}
        yield Row("pods that reach the world, masqueraded", str(len(cluster.pods)))


def heal(args: argparse.Namespace) -> Iterator[Row]:
    """Take parts of the data plane away, one after the other."""
    with cluster_of(args, 2) as cluster:
        for disturbance in healing.disturbances(args.backend):
            seconds = healing.heal(cluster.nodes[0], disturbance)
            assert traffic.failures(cluster) == [], disturbance.name
            yield Row(f"{disturbance.name}: repaired after", f"{seconds:.2f} s")
        seconds = healing.heal_rules(cluster.nodes[0])
        yield Row("all rules of the packet filter flushed: repaired after", f"{seconds:.2f} s")


def restarted(args: argparse.Namespace) -> Iterator[Row]:
    """Kill the daemon and start it again, under traffic."""
    times = args.times or 5
    with cluster_of(args, 2) as cluster:
        for path, loss in restart.restart(cluster, signal.SIGKILL, times).items():
            text = f"{loss.lost} of {loss.sent} packets"
            yield Row(f"SIGKILL and restart, {times} times: lost from {path}", text)


def cut(args: argparse.Namespace) -> Iterator[Row]:
    """Take etcd away for a time, and let a peer change while the watch is cut."""
    seconds = args.seconds or 60
    with cluster_of(args, 2) as cluster:
        for path, loss in outage.unreachable(cluster, seconds).items():
            text = f"{loss.lost} of {loss.sent} packets"
            yield Row(f"etcd unreachable for {seconds} s: lost from {path}", text)
    with cluster_of(args, 2) as cluster:
        after = outage.readdressed(cluster)
        assert traffic.failures(cluster) == []
        yield Row("a peer's new address and MAC, from the end of a cut", f"{after:.2f} s")


def joined(args: argparse.Namespace) -> Iterator[Row]:
    """Start many daemons at once."""
    count = args.nodes or 50
    with Cluster(configuration(args.backend, args.families)) as cluster:
        seconds = join.join(cluster, count)
        yield Row(
            f"{count} daemons started at once: all ready, with distinct subnets", f"{seconds:.1f} s"
        )


def scaled(args: argparse.Namespace) -> Iterator[Row]:
    """Put many leases into etcd at once."""
    for leases in [args.leases] if args.leases else [1000, 5000]:
        with cluster_of(args, 1, Network=join.BIG_NETWORK) as cluster:
            figures = join.scale(cluster, leases)
        yield Row(f"{leases} leases put into etcd: CPU time", f"{figures.cpu_seconds:.2f} s")
        text = f"{figures.seconds:.1f} s (etcd: {figures.load_seconds:.1f} s)"
        yield Row(f"{leases} leases: from the first put until programmed", text)
        yield Row(f"{leases} leases: CPU time of a restart", f"{figures.restart_cpu_seconds:.2f} s")
        yield Row(
            f"{leases} leases: CPU time of their removal", f"{figures.removal_cpu_seconds:.2f} s"
        )
        yield Row(f"{leases} leases: peak memory", f"{figures.peak_mib:.0f} MiB")


def migrated(args: argparse.Namespace) -> Iterator[Row]:
    """Change the backend node by node, under traffic."""
    for old, new in (("vxlan", "host-gw"), ("host-gw", "vxlan")):
        args.backend = old
        with cluster_of(args, 2) as cluster:
            losses = [*migration.migrate(cluster, new)]
        lost, sent = sum(loss.lost for loss in losses), sum(loss.sent for loss in losses)
        yield Row(f"{old} to {new}, node by node: lost", f"{lost} of {sent} packets")


def mixed(args: argparse.Namespace) -> Iterator[Row]:
    """A node as the Go daemon makes it, in one network with ours."""
    with cluster_of(args, 2) as cluster:
        add_go_node(cluster).attach()
        for node in cluster.nodes[:2]:
            node.await_peers(2)
        trips = traffic.trips(cluster)
        reached = sum(not trip.error for trip in trips)
        assert reached == len(trips), [str(trip) for trip in trips if trip.error]
        yield Row("with a node as Go makes it: pods that reach pods", f"{reached} of {len(trips)}")


VERBS = {
    "reach": reach,
    "heal": heal,
    "restart": restarted,
    "cut": cut,
    "join": joined,
    "scale": scaled,
    "migrate": migrated,
    "mixed": mixed,
}

FULL = (
    *(
        f"reach --backend {backend} --families {families}"
        for backend in ("vxlan", "host-gw")
        for families in ("4", "6", "46")
    ),
    "reach --backend udp",
    "heal --backend vxlan --families 46",
    "heal --backend host-gw --families 46",
    "heal --backend udp",
    "restart --backend vxlan --families 46",
    "restart --backend host-gw --families 46",
    "restart --backend udp",
    "cut --backend vxlan",
    "join --nodes 50",
    "scale",
    "migrate --families 46",
    "mixed",
)

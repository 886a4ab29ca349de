"""What `./build.sh demo --nodes N` shows: nodes, who reaches whom, a repair, one node's view."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.lab import traffic
from tests.lab.cluster import Cluster, configuration
from tests.lab.healing import Disturbance, heal
from tests.lab.node import program
from tests.lab.space import LabError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.lab.traffic import Trip

_DAMAGE = {
    "vxlan": "ip link delete flannel.1",
    "host-gw": "ip route flush proto 244",
    "udp": "ip link set flannel0 down",
}


def show(args: argparse.Namespace) -> int:
    """Nodes in network namespaces, each with a daemon, and pods that reach each other."""
    failed = True
    try:
        with Cluster(configuration(args.backend, args.families)) as cluster:
            failed = _story(cluster, args.nodes or 3)
    except LabError as error:
        print(f"\nfailed: {error}", file=sys.stderr)
    print("\nThe lab has ended, and with it its processes, namespaces and files.")
    return int(failed)


def _story(cluster: Cluster, count: int) -> bool:
    backend = cluster.conf["Backend"]["Type"]
    _head("etcd has the network's configuration")
    print(f"  {cluster.etcd.ctl('get', '/coreos.com/network/config').splitlines()[-1]}")
    _head(f"{count} nodes: each runs flanneld, and has one pod attached by the CNI plugin")
    cluster.start(count)
    for node in cluster.nodes:
        env, (pod,) = node.subnet_env(), node.pods
        subnets = [env[name] for name in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET") if name in env]
        addresses = " ".join(pod.addresses.values())
        print(
            f"  {node.name} {node.address}: subnet {' '.join(subnets)},"
            f" mtu {env['FLANNEL_MTU']}, pod {pod.name} {addresses}"
        )
    _head("who reaches whom: 1 MB over TCP, in milliseconds")
    failed = _matrix(cluster, traffic.trips(cluster))
    _head("and the world outside, which sees")
    for pod in cluster.pods:
        family = cluster.families[0]
        seen = traffic.source_seen(pod.netns, cluster.underlay.netns, traffic.world(family))
        print(f"  {pod.name} as {seen}")
    _head(f"on {cluster.nodes[0].name}, somebody runs: {_DAMAGE[backend]}")
    seconds = heal(cluster.nodes[0], Disturbance("the damage", _DAMAGE[backend]))
    print(f"  flanneld has put it right: {seconds * 1000:.0f} ms later all is as before")
    _head(f"flanneld status, on {cluster.nodes[0].name}")
    print(_indented(cluster.nodes[0].run(*program(), "status", check=False).stdout))
    return failed


def _matrix(cluster: Cluster, trips: Sequence[Trip]) -> bool:
    """Print a row for each source and family; whether any trip failed."""
    print("  " + " " * 16 + "".join(f"{pod.name:>10}" for pod in cluster.pods))
    for family in cluster.families:
        for source in cluster.pods:
            cells = [
                f"{'-' if trip.error else format(trip.seconds * 1000, '.1f'):>10}"
                for trip in trips
                if trip.source is source and trip.family == family
            ]
            print(f"  {source.name:<10}IPv{family}  {''.join(cells)}")
    failures = [trip for trip in trips if trip.error]
    for trip in failures:
        print(f"  {trip}", file=sys.stderr)
    return bool(failures)


def _head(text: str) -> None:
    print(f"\n{text}", flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

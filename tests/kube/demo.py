"""What `./build.sh cluster` shows: a cluster without a network, with one, and its end."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.kube.binaries import VERSION, BuildError
from tests.kube.cluster import Cluster
from tests.kube.network import HostProcesses
from tests.kube.pods import MEGABYTE, PORT, service, web
from tests.lab import web as pages
from tests.lab.space import LabError, until
from tests.lab.underlay import GATEWAY

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from tests.kube.cluster import Pod
    from tests.kube.node import Node

_HOST_PORT = 8000
_END = "the cluster has ended, and with it its processes, namespaces, files and cgroups"


def show(args: argparse.Namespace) -> int:
    """Tell the whole story; with ``--stay``, keep the cluster until Ctrl-C."""
    failed = True
    start = time.monotonic()
    try:
        with Cluster(args.families, HostProcesses(args.backend)) as cluster:
            _head(f"Kubernetes {VERSION}: its control plane is ready on {GATEWAY}", start)
            try:
                failed = _story(cluster, args.nodes)
                if args.stay:
                    _stay(cluster)
            finally:
                start = time.monotonic()
    except (AssertionError, BuildError, LabError, OSError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
    finally:
        _head(
            "the cluster has ended, and with it its processes, namespaces, files and cgroups", start
        )
    return int(failed)


def _story(cluster: Cluster, count: int) -> bool:
    start = time.monotonic()
    nodes = [cluster.add_node() for _ in range(count)]
    cluster.await_nodes(nodes, ready=False)
    _head(f"{count} nodes with containerd, kubelet and kube-proxy, and no network yet", start)
    _print_nodes(cluster, nodes)
    start = time.monotonic()
    for node in nodes:
        cluster.network.join(node)
    cluster.await_nodes(nodes)
    _head("flanneld and the CNI plugins on each", start)
    _print_nodes(cluster, nodes)
    start = time.monotonic()
    names = [f"web{node.number}" for node in nodes]
    cluster.kubectl.apply(
        *(
            web(name, node.name, host_port=_HOST_PORT)
            for name, node in zip(names, nodes, strict=True)
        ),
        service("webs", app="web"),
    )
    pods = [cluster.pod(name) for name in names]
    _head("a pod on each node; who reaches whom: 1 MB over HTTP, in milliseconds", start)
    failed = _print_matrix(pods)
    _print_service(cluster, pods)
    _print_host_port(cluster, pods[-1])
    _print_deletion(cluster, pods[-1])
    return failed


def _print_nodes(cluster: Cluster, nodes: Sequence[Node]) -> None:
    for node in nodes:
        found = cluster.kubectl.get(f"node/{node.name}")
        (ready,) = (each for each in found["status"]["conditions"] if each["type"] == "Ready")
        is_ready = ready["status"] == "True"
        why = ready["message"].rpartition("message:")[2].partition(",")[0].rstrip("]")
        subnets = " ".join(found["spec"].get("podCIDRs", ["-"]))
        state = f"Ready, pods in {subnets}" if is_ready else f"NotReady: {why}"
        print(f"  {node.name} {node.address}  {state}")


def _print_matrix(pods: Sequence[Pod]) -> bool:
    """Print a row for each source and family; whether any transfer failed."""
    failures = []
    print("  " + " " * 14 + "".join(f"{pod.name:>10}" for pod in pods))
    for family in pods[0].addresses:
        for source in pods:
            cells = []
            for target in pods:
                start = time.monotonic()
                try:
                    _, page = pages.get(source.netns, target.addresses[family], PORT, "/megabyte")
                    assert len(page) == MEGABYTE, f"{len(page)} bytes"
                except (AssertionError, OSError) as error:
                    failures.append(f"{source.name} -> {target.addresses[family]}: {error}")
                    cells.append("-")
                else:
                    cells.append(f"{(time.monotonic() - start) * 1000:.1f}")
            print(f"  {source.name:<8}IPv{family}  " + "".join(f"{cell:>10}" for cell in cells))
    for failure in failures:
        print(f"  {failure}", file=sys.stderr)
    return bool(failures)


def _print_service(cluster: Cluster, pods: Sequence[Pod]) -> None:
    address = cluster.kubectl.get("service/webs")["spec"]["clusterIP"]
    calls = 10 * len(pods)

    def answers() -> Counter[str]:
        return Counter(_name(pods[0].netns, address, 80) for _ in range(calls))

    def all_answer() -> bool:
        try:
            return len(answers()) == len(pods)
        except OSError:
            return False  # kube-proxy has not seen all of it yet

    until("all pods answer for the service", all_answer)
    told = ", ".join(f"{name} {count}" for name, count in sorted(answers().items()))
    _head(f"a Service, {address}: of {calls} calls from {pods[0].name} were answered by")
    print(f"  {told}")


def _print_host_port(cluster: Cluster, pod: Pod) -> None:
    address = f"{pod.node.address}:{_HOST_PORT}"
    name = _name(cluster.underlay.netns, pod.node.address, _HOST_PORT)
    _head(f"a hostPort, {address}: from outside of the nodes it is answered by")
    print(f"  {name}")


def _print_deletion(cluster: Cluster, pod: Pod) -> None:
    def count() -> str:
        return ", ".join(f"{len(found)} {kind}" for kind, found in pod.node.traces().items())

    _head(f"{pod.name} is deleted; {pod.node.name} has")
    print(f"  before     {count()}")
    start = time.monotonic()
    cluster.kubectl.delete(f"pod/{pod.name}")
    until("the pod's namespace is gone", lambda: not pod.node.traces()["namespaces"])
    print(f"  afterwards {count()}{_took(start)}")


def _stay(cluster: Cluster) -> None:
    _head("the cluster stays until Ctrl-C. In another terminal, as root:")
    underlay = cluster.underlay
    print(f"  alias kubectl='{' '.join(underlay.nsenter)} {' '.join(cluster.kubectl.words)}'")
    for node in cluster.nodes:
        print(f"  {node.name}: nsenter --target {node.pid} --all")
    print(f"  logs: {underlay.path('/run/log')}/ and, on a node, /run/log/")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def _name(netns: Path, address: str, port: int) -> str:
    return pages.get(netns, address, port, "/name")[1].decode().strip()


def _head(text: str, start: float = 0.0) -> None:
    print(f"\n{text}{_took(start) if start else ''}", flush=True)


def _took(start: float) -> str:
    return f" ({time.monotonic() - start:.1f} s)"

"""Kubernetes as the daemon's store: what it writes into Nodes, what it does when they change."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.kube.network import DAEMON, await_ready, readiness
from tests.kube.pods import PORT, web
from tests.kube.test_pods import name_at
from tests.lab.space import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.cluster import Cluster, Pod
    from tests.kube.node import Node

PREFIX = "flannel.alpha.coreos.com/"


def written(cluster: Cluster, node: Node) -> dict[str, str]:
    """Give the annotations of a node that are flannel's."""
    found = cluster.kubectl.get(f"node/{node.name}")["metadata"].get("annotations", {})
    return {
        name.removeprefix(PREFIX): value for name, value in found.items() if name.startswith(PREFIX)
    }


def test_a_node_says_how_it_is_reached(cluster: Cluster) -> None:
    for node in cluster.nodes:
        (link,) = node.ip("link", "show", "flannel.1")
        assert written(cluster, node) == {
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "backend-data": json.dumps(
                {"VNI": 1, "VtepMAC": link["address"]}, separators=(",", ":")
            ),
            "public-ip": node.address,
        }
        conditions = cluster.kubectl.get(f"node/{node.name}")["status"]["conditions"]
        told = {each["type"]: each for each in conditions}["NetworkUnavailable"]
        assert (told["status"], told["reason"]) == ("False", "FlannelIsUp")
        assert len(conditions) > 3, "kubelet's own are still there"


def test_annotations_that_somebody_wipes_are_back(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    before = written(cluster, node)
    wiped = [f"{PREFIX}{name}-" for name in before]
    cluster.kubectl.run("annotate", f"node/{node.name}", *wiped)
    until("they are back", lambda: written(cluster, node) == before)


def test_an_address_that_somebody_wants_is_told(cluster: Cluster) -> None:
    one, two = cluster.nodes
    told = f"{PREFIX}public-ip-overwrite"

    def remotes() -> list[str]:
        entries = json.loads(one.run("bridge", "-j", "fdb", "show", "dev", "flannel.1").stdout)
        return [each["dst"] for each in entries]

    cluster.kubectl.run("annotate", f"node/{two.name}", f"{told}=192.168.64.77")
    try:
        until("the other node sends there", lambda: remotes() == ["192.168.64.77"])
    finally:
        cluster.kubectl.run("annotate", f"node/{two.name}", f"{told}-")
    until("and to the node again", lambda: remotes() == [two.address])


def test_a_foreign_node_is_reached_as_long_as_it_is_there(cluster: Cluster) -> None:
    """One that is no machine of the cluster: a Go daemon's, or a load balancer's without a VNI."""
    here, mac = cluster.nodes[0], "c6:d2:32:6f:8f:44"
    told = {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "public-ip": "192.168.64.99",
        "backend-data": f'{{"VtepMAC":"{mac}"}}',
    }
    metadata = {"name": "foreign", "annotations": {PREFIX + key: told[key] for key in told}}
    spec = {"podCIDR": "10.244.200.0/24", "podCIDRs": ["10.244.200.0/24"]}
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
    try:
        route = "ip route show 10.244.200.0/24"
        until("it has a route", lambda: "dev flannel.1" in here.sh(route))
        until("and an address", lambda: "192.168.64.99" in here.sh("bridge fdb show dev flannel.1"))
        status = here.run(DAEMON, "status", check=False).stdout
        assert "store      Kubernetes, by /mnt/pki/flannel.conf" in status
        wiped = f"{PREFIX}kube-subnet-manager-", f"{PREFIX}backend-data-", f"{PREFIX}public-ip-"
        cluster.kubectl.run("annotate", "node/foreign", *wiped, f"{PREFIX}backend-type-")
        told_of = "Node foreign has lost its annotations"
        until("that is said", lambda: told_of in here.run(DAEMON, "status", check=False).stdout)
        assert "dev flannel.1" in here.sh(route)
    finally:
        cluster.kubectl.delete("node/foreign")
    until("it is gone", lambda: not here.sh(route))


def test_a_node_without_a_podcidr_says_who_gives_it(cluster: Cluster) -> None:
    controllers = cluster.control.processes["kube-controller-manager"]
    controllers.signal(signal.SIGSTOP)
    node = cluster.add_node()

    def said() -> str:
        return readiness(node)[1] if "flanneld" in node.processes else ""

    try:
        with ThreadPoolExecutor() as pool:
            joining = pool.submit(cluster.network.join, node)
            try:
                until("/readyz says so", lambda: "--allocate-node-cidrs" in said(), 180)
                cluster.kubectl.until(
                    "an Event says so",
                    lambda found: any(
                        each["reason"] == "FlannelWaiting"
                        and each["involvedObject"]["name"] == node.name
                        and "--cluster-cidr=10.244.0.0/16" in each["message"]
                        for each in found["items"]
                    ),
                    "events",
                )
            finally:
                controllers.signal(signal.SIGCONT)
            joining.result()
        cluster.await_nodes([node])
    finally:
        cluster.remove_node(node)


def test_a_node_made_anew_is_followed(cluster: Cluster) -> None:
    node = cluster.add_node()
    try:
        cluster.network.join(node)
        cluster.await_nodes([node])
        before = written(cluster, node)
        (old,) = cluster.kubectl.get(f"node/{node.name}")["spec"]["podCIDRs"]
        cluster.kubectl.delete(f"node/{node.name}")
        cluster.kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}})
        until("its annotations are there", lambda: written(cluster, node) == before)
        (new,) = cluster.kubectl.get(f"node/{node.name}")["spec"]["podCIDRs"]
        assert new != old, "Kubernetes gives another one"
        subnet = f"FLANNEL_SUBNET={new.replace('.0/', '.1/')}"
        until("subnet.env follows", lambda: subnet in node.sh("cat /run/flannel/subnet.env"))
        routes = f"ip -4 route show {new}"
        until("the others follow", lambda: "flannel.1" in cluster.nodes[0].sh(routes))
        until("nothing is old", lambda: not cluster.nodes[0].sh(f"ip -4 route show {old}"))
    finally:
        cluster.remove_node(node)


def test_a_daemon_starts_without_the_api_server(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    one, two = run(web("one", "node1"), web("two", "node2"))
    node, server = two.node, cluster.control.processes["kube-apiserver"]
    until("what is told is kept", lambda: "node1" in node.sh("cat /var/lib/flannel/kube/*.json"))
    node.processes["flanneld"].signal(signal.SIGKILL)
    node.processes["flanneld"].wait()
    server.signal(signal.SIGKILL)
    server.wait()
    try:
        node.sh("ip link delete flannel.1; rm -r /run/flannel")
        cluster.network.start(node)
        await_ready(node)
        assert name_at(one.netns, two.addresses[4], PORT) == "two"
        assert name_at(two.netns, one.addresses[4], PORT) == "one"
        log = node.log("flanneld")
        assert "as the API server told them last" in log
    finally:
        cluster.control.start_api_server()
    before = written(cluster, node)
    cluster.kubectl.run("annotate", f"node/{node.name}", f"{PREFIX}public-ip-")
    until("it writes again", lambda: written(cluster, node) == before)

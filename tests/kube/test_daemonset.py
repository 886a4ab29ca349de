"""`kubectl apply -f deploy/kube-flannel.yml`: the network as a user gets it, on its own cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kube.cluster import Cluster
from tests.kube.network import DaemonSet
from tests.kube.node import CNI_BIN, CNI_CONF
from tests.kube.pods import PORT, web
from tests.kube.test_pods import name_at
from tests.kube.test_store import written
from tests.lab.space import ROOT, LabError, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMESPACE = "--namespace=kube-flannel"


@pytest.fixture(scope="module")
def applied(programs: Path) -> Iterator[Cluster]:
    """Give a cluster of two nodes whose network is the manifest's."""
    assert programs.is_dir()
    with Cluster(network=DaemonSet()) as cluster:
        nodes = [cluster.add_node() for _ in range(2)]
        cluster.await_nodes(nodes, ready=False)
        for node in nodes:
            cluster.network.join(node)
        try:
            cluster.await_nodes(nodes)
        except LabError:
            print(cluster.kubectl.run("describe", "pods", NAMESPACE).stdout)
            print(cluster.kubectl.run("logs", "daemonset/kube-flannel-ds", NAMESPACE).stdout)
            raise
        yield cluster


def test_the_manifest_is_a_network(applied: Cluster) -> None:
    applied.kubectl.apply(web("one", "node1"), web("two", "node2"))
    one, two = applied.pod("one"), applied.pod("two")
    assert name_at(one.netns, two.addresses[4], PORT) == "two"
    assert name_at(two.netns, one.addresses[4], PORT) == "one"
    applied.kubectl.run(
        "rollout", "status", "daemonset/kube-flannel-ds", NAMESPACE, "--timeout=180s"
    )
    for node in applied.nodes:
        assert written(applied, node)["kube-subnet-manager"] == "true"
        link = node.sh(f"readlink {CNI_CONF}/10-flannel.conflist").strip()
        assert link == "/run/flannel/10-flannel.conflist"
        assert node.sh(f"ls {CNI_CONF}").split() == ["10-flannel.conflist"]
        assert {"flannel", "host-local", "loopback", "portmap"} == set(
            node.sh(f"ls {CNI_BIN}").split()
        )


def test_its_removal_leaves_the_nodes_clean(applied: Cluster) -> None:
    """The last of the module: nothing of the network is there afterwards."""
    kubectl = applied.kubectl
    kubectl.run("delete", "--ignore-not-found", "--wait", "pod/one", "pod/two")
    kubectl.run("delete", "daemonset/kube-flannel-ds", NAMESPACE, "--wait", "--timeout=180s")
    until("its pods are gone", lambda: not kubectl.items("pods", NAMESPACE, "-l", "app=flannel"))
    kubectl.run("apply", "-f", "-", text=(ROOT / "deploy/kube-flannel-cleanup.yml").read_text())
    kubectl.run(
        *("rollout", "status", "daemonset/kube-flannel-cleanup", NAMESPACE, "--timeout=180s")
    )
    for node in applied.nodes:
        assert node.sh(f"ls -A {CNI_CONF}").split() == []
        assert node.sh(f"ls -A {CNI_BIN}").split() == ["loopback", "portmap"]
        assert "flannel.1" not in {link["ifname"] for link in node.ip("link")}
        assert "FLANNEL" not in node.run("iptables-save").stdout
        assert node.sh("ls -A /run/flannel; find /var/lib/flannel -type f").split() == [
            "subnet.env.lock"
        ]
    applied.await_nodes(applied.nodes, ready=False)

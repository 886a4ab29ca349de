"""`kubectl apply -f deploy/kube-flannel.yml`: the network as a user gets it, on its own cluster."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.kube.cluster import Cluster
from tests.kube.network import DaemonSet
from tests.kube.node import CNI_BIN, CNI_CONF
from tests.kube.pods import PORT, web
from tests.kube.test_pods import name_at
from tests.kube.test_store import written
from tests.kube.underlay import CHECKOUT
from tests.lab.space import ROOT, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMESPACE = "--namespace=kube-flannel"
PAGE = (ROOT / "docs/install.md").read_text()


def typed(cluster: Cluster, section: str) -> list[str]:
    """Type what a section of the page tells a user to type to kubectl; what was printed."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("kubectl ")]
    assert commands
    return [
        cluster.kubectl.run(
            *(word.replace("deploy/", f"{CHECKOUT}/deploy/", 1) for word in command[1:]),
            check=command[-1] != "status",  # whose exit status says what it found
        ).stdout
        for command in commands
    ]


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


def test_the_manifest_is_a_network_and_goes_again(applied: Cluster) -> None:
    applied.kubectl.apply(web("one", "node1"), web("two", "node2"))
    one, two = applied.pod("one"), applied.pod("two")
    assert name_at(one.netns, two.addresses[4], PORT) == "two"
    assert name_at(two.netns, one.addresses[4], PORT) == "one"
    *_, nodes = typed(applied, "Install")
    assert nodes.count(" Ready ") == len(applied.nodes)
    _, log, status, _ = typed(applied, "What to type first when a node is not Ready")
    assert "flanneld starts" in log
    assert "store      Kubernetes" in status
    assert "rules      ok" in status
    assert "accept_ra is 1 and cannot be set" in status, "the page names this one difference"
    assert "1 differences" in status
    for node in applied.nodes:
        assert written(applied, node)["kube-subnet-manager"] == "true"
        link = node.sh(f"readlink {CNI_CONF}/10-flannel.conflist").strip()
        assert link == "/run/flannel/10-flannel.conflist"
        assert node.sh(f"ls {CNI_CONF}").split() == ["10-flannel.conflist"]
        assert {"flannel", "host-local", "loopback", "portmap"} == set(
            node.sh(f"ls {CNI_BIN}").split()
        )
    _remove(applied)


def _remove(applied: Cluster) -> None:
    """Follow the page: nothing of the network is there afterwards but what the page names."""
    kubectl = applied.kubectl
    kubectl.run("delete", "--ignore-not-found", "--wait", "pod/one", "pod/two")
    assert "successfully rolled out" in typed(applied, "Remove")[2]
    for node in applied.nodes:
        assert node.sh(f"ls -A {CNI_CONF}").split() == []
        assert node.sh(f"ls -A {CNI_BIN}").split() == ["loopback", "portmap"]
        assert "flannel.1" not in {link["ifname"] for link in node.ip("link")}
        assert "FLANNEL" not in node.run("iptables-save").stdout
        left = node.sh("ls -A /run/flannel; find /var/lib/flannel -type f").split()
        assert left == ["subnet.lock"]
    applied.await_nodes(applied.nodes, ready=False)

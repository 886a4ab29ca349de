"""Every pod reaches every pod and the world, by each backend and family."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

import pytest

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.nat import PRIVATE, PUBLIC, add_node_behind_nat
from tests.lab.node import SOURCE
from tests.lab.plane import plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster
    from tests.lab.node import Node

# The underlay's 1500 bytes, less the headers of the tunnel; a dual-stack network has one MTU.
MTU = {
    ("vxlan", "4"): 1450,
    ("vxlan", "6"): 1430,
    ("vxlan", "46"): 1430,
    ("host-gw", "4"): 1500,
    ("host-gw", "6"): 1500,
    ("host-gw", "46"): 1500,
    ("udp", "4"): 1472,
}


@pytest.mark.parametrize(("backend", "families"), MTU, ids=map("-".join, MTU))
def test_every_pod_reaches_every_pod(
    new_cluster: Callable[..., Cluster], backend: str, families: str
) -> None:
    cluster = new_cluster(configuration(backend, families)).start(2).start(1, pods=2)
    assert traffic.failures(cluster) == []
    one, two, *_ = cluster.pods
    mtu = MTU[backend, families]
    for family in cluster.families:
        assert traffic.largest(one, two, family, mtu) == (True, False)
        target = two.addresses[family]
        # Between pods nothing is masqueraded; the world would not find the way back.
        assert traffic.source_seen(one.netns, two.netns, target) == one.addresses[family]
        seen = traffic.source_seen(one.netns, cluster.underlay.netns, traffic.world(family))
        assert seen == (one.node.address if family == 4 else one.node.address6)
        assert traffic.ping(one.node, "", target), "from the node to another node's pod"
    for node in cluster.nodes:
        assert not [cause for cause in node.command("status")["causes"] if cause["blocks"]]
        assert node.subnet_env()["FLANNEL_MTU"] == str(mtu)


def test_the_daemon_runs_from_the_checkout(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(1)
    node = cluster.add_node()
    node.start_daemon(command=SOURCE)
    cluster.settle()
    node.attach()
    assert traffic.failures(cluster) == []


def test_a_node_behind_nat_is_reached(new_cluster: Callable[..., Cluster]) -> None:
    """The packets' source is the node's own address, their target the public one that it names."""
    cluster = new_cluster(configuration("vxlan")).start(2)
    node = add_node_behind_nat(cluster)
    node.start_daemon("--iface", "eth0", "--public-ip", PUBLIC)
    cluster.settle()
    node.attach()
    assert traffic.failures(cluster) == []
    (device,) = node.ip("link", "show", "flannel.1")
    assert device["linkinfo"]["info_data"]["local"] == PRIVATE
    assert f'"PublicIP":"{PUBLIC}"' in "".join(cluster.etcd.leases().values())


def test_direct_routing_goes_around_the_tunnel(new_cluster: Callable[..., Cluster]) -> None:
    """Peers on the node's own link; one behind a router, as here the translator, by the tunnel."""
    cluster = new_cluster(configuration("vxlan", DirectRouting=True)).start(2)
    distant = add_node_behind_nat(cluster)
    distant.start_daemon("--iface", "eth0", "--public-ip", PUBLIC)
    cluster.settle()
    distant.attach()
    assert traffic.failures(cluster) == []
    first, second, _ = cluster.nodes
    routes = {
        line.split()[1]: line.split()[2:] for line in plane(first) if line.startswith("route")
    }
    assert routes[subnet_of(second)] == [second.address, "eth0"]
    assert len([line for line in plane(distant) if line.startswith("fdb")]) == 2


def subnet_of(node: Node) -> str:
    """Give the node's subnet as the kernel writes a destination."""
    return str(IPv4Interface(node.subnet_env()["FLANNEL_SUBNET"]).network)

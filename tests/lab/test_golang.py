"""Nodes of the Go daemon and ours form one network; ours takes a node over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.golang import MAC, SUBNET, add_go_node, take_over
from tests.lab.plane import plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


def test_traffic_flows_both_ways_with_a_go_node(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    go = add_go_node(cluster)
    go.attach()
    for node in cluster.nodes[:2]:
        node.await_peers(2)
    assert traffic.failures(cluster) == []


def test_our_values_are_written_as_go_writes_them(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(1)
    ((key, value),) = cluster.etcd.leases().items()
    assert re.fullmatch(r"10\.244\.\d+\.0-24", key)
    (device,) = cluster.nodes[0].ip("link", "show", "flannel.1")
    assert value == (
        '{"PublicIP":"192.168.64.1","PublicIPv6":null,"BackendType":"vxlan",'
        f'"BackendData":{{"VNI":1,"VtepMAC":"{device["address"]}"}}}}'
    )


def test_our_daemon_takes_a_go_node_over(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(1)
    go = add_go_node(cluster)
    pod = go.attach()
    stream = traffic.Stream(pod, cluster.pods[0].addresses[4])
    take_over(go)
    assert stream.stop().lost == 0
    assert go.subnet_env()["FLANNEL_SUBNET"] == f"{SUBNET[1]}/24"
    assert MAC in cluster.etcd.leases()[str(SUBNET).replace("/", "-")]
    assert not any("250" in line for line in plane(go)), "the path to a peer that is gone"
    assert traffic.failures(cluster) == []

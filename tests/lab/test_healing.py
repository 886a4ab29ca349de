"""Whatever is taken away from the kernel comes back, and pods reach each other again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.healing import disturbances, heal, heal_rules
from tests.lab.plane import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_what_is_taken_away_comes_back(new_cluster: Callable[..., Cluster], backend: str) -> None:
    families = "4" if backend == "udp" else "46"
    cluster = new_cluster(configuration(backend, families)).start(2)
    for disturbance in disturbances(backend):
        heal(cluster.nodes[0], disturbance)
        assert traffic.failures(cluster) == [], disturbance.name


@pytest.mark.parametrize("filtered_by", ["iptables", "nftables"])
def test_flushed_rules_come_back(new_cluster: Callable[..., Cluster], filtered_by: str) -> None:
    conf = {**configuration("vxlan", "46"), "EnableNFTables": filtered_by == "nftables"}
    cluster = new_cluster(conf).start(1, "--iptables-resync", "1")
    (node,) = cluster.nodes
    assert len(rules(node)) > 10
    heal_rules(node)
    seen = traffic.source_seen(node.pods[0].netns, cluster.underlay.netns, traffic.world(4))
    assert seen == node.address

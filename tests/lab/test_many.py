"""Many daemons at once, many leases at once, and nodes that change their backend one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.join import BIG_NETWORK, join, scale
from tests.lab.migration import migrate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


def test_daemons_started_at_once_get_distinct_subnets(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan"))
    join(cluster, 8)
    for node in cluster.nodes[::7]:
        node.attach()
    assert traffic.failures(cluster) == []


def test_a_thousand_leases_are_programmed(new_cluster: Callable[..., Cluster]) -> None:
    conf = {**configuration("vxlan"), "Network": BIG_NETWORK}
    figures = scale(new_cluster(conf).start(1), 1000)
    assert figures.peak_mib < 150
    assert figures.cpu_seconds < 5, "CPU, not time: a busy machine does not change it much"


@pytest.mark.parametrize(("old", "new"), [("vxlan", "host-gw"), ("host-gw", "vxlan")])
def test_a_network_changes_its_backend_node_by_node(
    new_cluster: Callable[..., Cluster], old: str, new: str
) -> None:
    cluster = new_cluster(configuration(old, "46")).start(2)
    assert [loss.lost for loss in migrate(cluster, new)] == [0, 0]
    assert traffic.failures(cluster) == []
    devices = [link["ifname"] for node in cluster.nodes for link in node.ip("link")]
    assert ("flannel.1" in devices) == (new == "vxlan")

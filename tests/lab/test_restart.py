"""The data plane lives on without its daemon: no packet is lost when that ends and comes back."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.restart import restart

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


@pytest.mark.parametrize("filtered_by", ["iptables", "nftables"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_no_packet_is_lost_by_sigkill_and_restart(
    new_cluster: Callable[..., Cluster], backend: str, filtered_by: str
) -> None:
    conf = {**configuration(backend, "46"), "EnableNFTables": filtered_by == "nftables"}
    cluster = new_cluster(conf).start(2)
    for path, loss in restart(cluster, signal.SIGKILL).items():
        assert loss.lost == 0, path


def test_sigterm_leaves_everything_in_place(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    node = cluster.nodes[0]
    before = node.subnet_env()
    assert node.stop_daemon() == 0
    assert node.subnet_env() == before
    assert traffic.failures(cluster) == []

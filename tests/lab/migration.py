"""From one backend to another node by node, while every pod goes on reaching every pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.cluster import configuration
from tests.lab.traffic import Stream, failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.cluster import Cluster
    from tests.lab.traffic import Loss


def migrate(cluster: Cluster, backend: str) -> Iterator[Loss]:
    """Change the configuration, then restart one daemon after the other.

    Gives for each node what its pod's packets to another node's lost meanwhile.
    """
    families = "".join(map(str, cluster.families))
    cluster.conf = configuration(backend, families)
    cluster.etcd.configure(**cluster.conf)
    for number, node in enumerate(cluster.nodes):
        stream = Stream(node.pods[0], cluster.pods[number - 1].addresses[cluster.families[0]])
        node.stop_daemon()
        node.start_daemon()
        cluster.settle()
        yield stream.stop()
        assert failures(cluster) == []

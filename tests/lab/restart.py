"""A daemon that ends and starts again under traffic: how many packets are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.plane import plane
from tests.lab.traffic import Stream, world

if TYPE_CHECKING:
    import signal

    from tests.lab.cluster import Cluster
    from tests.lab.traffic import Loss


def restart(cluster: Cluster, number: signal.Signals, times: int = 1) -> dict[str, Loss]:
    """End and start the first node's daemon while its pod talks; losses by the path's name.

    The paths are to the second node's pod, and, masqueraded, to the world.
    """
    node = cluster.nodes[0]
    source, target = cluster.pods[:2]
    before = plane(node)
    names = {4: "", 6: " over IPv6"}
    streams = {}
    for family in cluster.families:
        streams[f"pod to pod{names[family]}"] = Stream(source, target.addresses[family])
        streams[f"pod to the world{names[family]}"] = Stream(source, world(family))
    for _ in range(times):
        node.stop_daemon(number)
        if cluster.conf["Backend"]["Type"] != "udp":  # whose device is a process's own
            assert plane(node) == before, "the data plane stays when the daemon ends"
        node.start_daemon()
        cluster.settle()
    assert plane(node) == before
    return {name: stream.stop() for name, stream in streams.items()}

"""Etcd away for a while, and what the nodes do without it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.lab.golang import value
from tests.lab.healing import Disturbance, heal
from tests.lab.plane import plane
from tests.lab.space import until
from tests.lab.traffic import Stream, failures, world
from tests.lab.underlay import GATEWAY

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster
    from tests.lab.traffic import Loss

UNHEARD_OF = "subnets/10.244.250.0-24"  # a lease that comes and goes meanwhile
NEW_ADDRESS, NEW_MAC = "192.168.64.77", "02:00:00:00:77:77"


def unreachable(cluster: Cluster, seconds: float) -> dict[str, Loss]:
    """Part all nodes from etcd for a time under traffic; the losses by the path's name.

    Meanwhile a device is deleted, and comes back; afterwards a new node is reached by all.
    """
    source, target = cluster.pods[:2]
    nodes = [*cluster.nodes]
    streams = {"pod to the world": Stream(source, world(cluster.families[0]))}
    for family in cluster.families:
        streams[f"pod to pod, IPv{family}"] = Stream(source, target.addresses[family])
    cluster.cut(*nodes)
    cluster.etcd.put(UNHEARD_OF, value("192.168.64.99"))
    time.sleep(seconds)
    assert nodes[0].metric("flannel_peers") == len(nodes) - 1, "etcd is away"
    cluster.etcd.delete(UNHEARD_OF)
    losses = {name: stream.stop() for name, stream in streams.items()}
    if cluster.conf["Backend"]["Type"] == "vxlan":
        heal(nodes[0], Disturbance("flannel.1 deleted", "ip link delete flannel.1"))
    cluster.mend(*nodes)
    cluster.start(1)
    assert failures(cluster) == []
    return losses


def readdressed(cluster: Cluster) -> float:
    """Give the second node another address and MAC while the first does not hear of it.

    The seconds until the first has the new path, from the time that it reaches etcd again.
    """
    first, second = cluster.nodes
    cluster.cut(first)
    second.sh(
        f"ip address delete {second.address}/24 dev eth0; ip address add {NEW_ADDRESS}/24 dev eth0;"
        f" ip route add default via {GATEWAY}"
    )
    until("published", lambda: NEW_ADDRESS in "".join(cluster.etcd.leases().values()))
    second.stop_daemon()
    second.sh(f"ip link set flannel.1 address {NEW_MAC}")
    second.start_daemon()
    second.await_ready()
    assert NEW_MAC in "".join(cluster.etcd.leases().values())
    second.address = NEW_ADDRESS
    entry = f"fdb {NEW_MAC} {NEW_ADDRESS}"
    assert entry not in plane(first), "it has not heard of it"
    cluster.mend(first)
    return until("the new path", lambda: entry in plane(first))

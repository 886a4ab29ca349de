"""What happens to etcd, and what of it pods may notice: nothing, but what the leases say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab import traffic
from tests.lab.cluster import configuration
from tests.lab.outage import readdressed, unreachable
from tests.lab.plane import plane
from tests.lab.space import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster


def test_etcd_restarted_and_compacted(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    cluster.etcd.stop()
    cluster.etcd.start()
    cluster.start(1)
    first = cluster.nodes[0]
    cluster.cut(first)
    cluster.etcd.stop()  # so that the watch that is cut has no end that waits for it
    cluster.etcd.start()
    cluster.start(1, known=False)
    cluster.etcd.ctl("compact", str(cluster.etcd.revision()))
    cluster.mend(first)
    cluster.settle()
    assert traffic.failures(cluster) == []


def test_etcd_unreachable_is_not_noticed(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan", "46")).start(2)
    for path, loss in unreachable(cluster, seconds=5).items():
        assert loss.lost == 0, path


def test_a_peer_changes_while_the_watch_is_cut(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    readdressed(cluster)
    assert traffic.failures(cluster) == []


def test_a_lease_that_expires_takes_its_path_along(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(1)
    node = cluster.nodes[0]
    alone = plane(node)
    cluster.start(1)
    known = plane(node)
    assert known > alone
    cluster.nodes[1].stop_daemon()
    key = cluster.key(cluster.nodes[1])
    value = cluster.etcd.leases()[key]
    granted = cluster.etcd.ctl("lease", "grant", "2").split()[1]
    cluster.etcd.put(f"subnets/{key}", value, f"--lease={granted}")
    until("the expired lease's path is gone", lambda: plane(node) == alone)


def test_a_daemon_whose_lease_is_revoked_ends(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    first, second = cluster.nodes
    key = cluster.key(second)
    lease = format(int(cluster.etcd.record(f"subnets/{key}")["lease"]), "x")
    cluster.etcd.ctl("lease", "revoke", lease)
    assert second.daemon is not None
    assert second.daemon.wait() == 1
    assert "revoked" in second.log()
    first.await_peers(0)
    assert not any("/24" in line for line in plane(first) if line.startswith("route"))


def test_a_node_comes_back_with_another_subnet(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("vxlan")).start(2)
    first, second = cluster.nodes
    old = second.subnet_env()["FLANNEL_SUBNET"]
    key = cluster.key(second)
    second.detach(second.pods[0])
    second.stop_daemon()
    second.cleanup()
    cluster.etcd.put(f"subnets/{key}", '{"PublicIP":"192.168.64.99","PublicIPv6":null}')
    second.start_daemon()
    second.await_peers(2)
    assert second.subnet_env()["FLANNEL_SUBNET"] != old
    second.attach()
    until("the new subnet is known", lambda: traffic.failures(cluster) == [])
    stale = old.rpartition(".")[0]
    assert not any(stale in line for line in plane(first))

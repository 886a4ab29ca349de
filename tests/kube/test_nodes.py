"""How a node comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kube.cluster import condition
from tests.kube.outside import settings
from tests.kube.pods import PORT, web
from tests.kube.test_pods import name_at
from tests.lab.space import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.cluster import Cluster, Pod


def test_a_node_is_ready_when_its_network_is(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    node = cluster.add_node()
    try:
        cluster.await_nodes([node], ready=False)
        found = cluster.kubectl.get(f"node/{node.name}")
        conditions = {each["type"]: each for each in found["status"]["conditions"]}
        assert "cni plugin not initialized" in conditions["Ready"]["message"]
        cluster.network.join(node)
        cluster.await_nodes([node])
        one, three = run(web("one", "node1"), web("three", node.name))
        assert name_at(one.netns, three.addresses[4], PORT) == "three"
        assert name_at(three.netns, one.addresses[4], PORT) == "one"
    finally:
        cluster.remove_node(node)
    names = [each["metadata"]["name"] for each in cluster.kubectl.items("nodes")]
    assert node.name not in names
    assert not any(folder.exists() for folder in node.cgroup.folders)


def test_a_node_that_was_switched_off_is_ready_again(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    one, two = run(web("one", "node1"), web("two", "node2"))
    node = two.node
    node.reboot()
    assert node.path("/etc/cni/net.d").is_dir(), "its disk is as it was"
    node.start_programs()
    cluster.network.join(node)
    cluster.await_nodes([node])
    again = restarted(cluster, two)
    assert name_at(one.netns, again.addresses[4], PORT) == "two"


def restarted(cluster: Cluster, pod: Pod) -> Pod:
    """Wait until a pod's container has been started again; the pod as it is then."""

    def count() -> int:
        status = cluster.kubectl.get(f"pod/{pod.name}")["status"]
        return int(status["containerStatuses"][0]["restartCount"])

    until(f"{pod.name} is started again", lambda: count() > 0, patience_s=180, pause_s=0.5)
    return cluster.pod(pod.name)


def test_a_cluster_changes_nothing_of_the_machine(
    cluster: Cluster, settings_before: dict[str, str]
) -> None:
    for node in cluster.nodes:
        assert condition(cluster.kubectl.get(f"node/{node.name}"), "Ready") == "True"
        assert node.sh("cat /proc/sys/kernel/panic").strip() == "10", "as kubelet wants it"
    assert settings() == settings_before

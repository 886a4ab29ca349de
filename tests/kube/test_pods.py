"""Pods of two nodes, as Kubernetes, its users and the kernel see them."""

from __future__ import annotations

import http
import json
import ssl
import urllib.request
from typing import TYPE_CHECKING

from conformance.state import difference, entered
from tests.kube.pods import MEGABYTE, PORT, service, web
from tests.lab import traffic
from tests.lab.space import LabError, until
from tests.lab.web import get

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kube.cluster import Cluster, Pod
MTU = 1450  # of vxlan on an underlay of 1500
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path


def name_at(netns: Path, address: str, port: int) -> str:
    """Ask a web server, from a namespace, for its name."""
    status, content = get(netns, address, port, "/name")
    assert status == http.HTTPStatus.OK
    return content.decode().strip()


def test_pods_reach_each_other(cluster: Cluster, run: Callable[..., list[Pod]]) -> None:
    one, two = run(web("one", "node1"), web("two", "node2"))
    for source, target in ((one, two), (two, one)):
        address = target.addresses[4]
        assert name_at(source.netns, address, PORT) == target.name
        status, content = get(source.netns, address, PORT, "/megabyte")
        assert (status, len(content)) == (http.HTTPStatus.OK, MEGABYTE)
        assert traffic.largest(source, target, 4, MTU) == (True, False)
        seen = traffic.source_seen(source.netns, target.netns, address)
        assert seen == source.addresses[4], "between pods nothing is masqueraded"
        told = cluster.kubectl.execute(source.name, "wget", "-qO-", f"http://{address}:{PORT}/name")
        assert told.stdout.strip() == target.name
    seen = traffic.source_seen(one.netns, cluster.underlay.netns, traffic.world(4))
    assert seen == one.node.address, "the world outside has no route to pods"


def test_addresses_are_of_the_nodes_pod_cidr(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    for pod in run(web("one", "node1"), web("two", "node2")):
        (cidr,) = cluster.kubectl.get(f"node/{pod.node.name}")["spec"]["podCIDRs"]
        assert pod.addresses[4].rpartition(".")[0] == cidr.rpartition(".")[0]


def test_a_service_answers(cluster: Cluster, run: Callable[..., list[Pod]]) -> None:
    one, two = run(web("one", "node1"), web("two", "node2"), service("webs", app="web"))
    address = cluster.kubectl.get("service/webs")["spec"]["clusterIP"]

    clients = [one.netns, two.netns, *(node.netns for node in cluster.nodes)]

    def both_answer_to_all() -> bool:
        try:
            answers = [{name_at(client, address, 80) for _ in range(10)} for client in clients]
        except OSError:
            return False  # a kube-proxy has not seen all of it yet
        return all(names == {"one", "two"} for names in answers)

    until("both pods answer for the service", both_answer_to_all)


def test_a_host_port_answers(cluster: Cluster, run: Callable[..., list[Pod]]) -> None:
    one, two = run(web("one", "node1"), web("two", "node2", host_port=8000))
    address = two.node.address
    for client in (one.netns, one.node.netns, cluster.underlay.netns, two.node.netns, two.netns):
        assert name_at(client, address, 8000) == "two"


def test_a_pod_that_is_deleted_leaves_nothing(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    node = cluster.nodes[1]
    # The bridge, and portmap's chains, stay with the first pod of a node.
    run(web("first", node.name, host_port=8000))
    cluster.kubectl.delete("pod/first")
    until("it is gone", lambda: not node.traces()["namespaces"])
    before = node.traces()
    run(web("second", node.name, host_port=8000))
    during = node.traces()
    assert all(during[kind] != before[kind] for kind in before), "each is a trace of a pod"
    cluster.kubectl.delete("pod/second")
    try:
        until("the node is as before", lambda: node.traces() == before)
    except LabError:
        assert difference(before, node.traces()) == []


def test_a_pod_on_the_hosts_network_talks_to_the_api_server(
    cluster: Cluster, run: Callable[..., list[Pod]]
) -> None:
    (pod,) = run(web("host", "node1", hostNetwork=True))
    assert pod.addresses[4] == pod.node.address
    token, authority = (
        cluster.kubectl.execute(pod.name, "cat", f"{TOKEN}/{name}").stdout
        for name in ("token", "ca.crt")
    )
    address = cluster.kubectl.get("service/kubernetes")["spec"]["clusterIP"]
    request = urllib.request.Request(
        f"https://{address}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        data=json.dumps(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "list", "resource": "nodes"}},
            }
        ).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cadata=authority)
    with (
        entered(pod.node.netns),
        urllib.request.urlopen(request, timeout=60, context=context) as answer,  # noqa: S310
    ):
        status = json.load(answer)["status"]
    assert status["allowed"] is False, "RBAC is on: nobody has allowed it"

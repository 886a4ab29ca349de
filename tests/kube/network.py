"""How the pods' network gets onto the nodes."""

from __future__ import annotations

import http
import json
from typing import TYPE_CHECKING, Any, Protocol

from tests.kube.control import PODS
from tests.kube.node import CNI_BIN, CNI_CONF
from tests.kube.underlay import CHECKOUT
from tests.lab import web
from tests.lab.space import LabError, until
from tests.lab.underlay import GATEWAY

if TYPE_CHECKING:
    from tests.kube.cluster import Cluster
    from tests.kube.node import Node

HEALTH_PORT = 8081
DAEMON = f"{CHECKOUT}/dist/flanneld/flanneld"
GO_PLUGINS = "/usr/lib/cni"
CONFLIST = {
    "name": "cbr0",
    "cniVersion": "1.0.0",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Network(Protocol):
    """What a cluster does to have one."""

    def begin(self, cluster: Cluster) -> None:
        """Do what is done once, when the API server is there."""

    def join(self, node: Node) -> None:
        """Do what is done on a node that has booted; its kubelet runs, and says NotReady."""


class HostProcesses:
    """The daemon as a process of each node, as systemd would start it, with its leases in etcd.

    Each node's lease is reserved, so that the subnet is the one that Kubernetes has chosen.
    """

    def __init__(self, backend: str = "vxlan") -> None:
        self._backend = backend

    def begin(self, cluster: Cluster) -> None:
        """Write the network's configuration into etcd."""
        self._cluster = cluster
        cluster.control.etcd.configure(
            Network=PODS[4],
            SubnetMin=PODS[4].partition("/")[0],  # Kubernetes gives away the first one too
            IPv6Network=PODS[6],
            EnableIPv6="6" in cluster.families,
            Backend={"Type": self._backend},
        )

    def join(self, node: Node) -> None:
        """Install the plugins, start the daemon, and write the conflist when it is ready."""
        node.run(DAEMON, "install", "--no-units", "--from", f"{CHECKOUT}/dist/cni-flannel", CNI_BIN)
        node.run("cp", f"{GO_PLUGINS}/portmap", f"{GO_PLUGINS}/loopback", CNI_BIN)
        self._reserve(node)
        node.start_daemon(
            *(DAEMON, "--ip-masq"),
            *("--etcd-endpoints", f"http://{GATEWAY}:2379", "--healthz-port", str(HEALTH_PORT)),
        )
        until(f"flanneld of {node.name} is ready", lambda: self._is_ready(node))
        node.write(f"{CNI_CONF}/10-flannel.conflist", CONFLIST)

    def _reserve(self, node: Node) -> None:
        spec = self._cluster.kubectl.until(
            f"{node.name} has its podCIDRs",
            lambda found: len(found["spec"].get("podCIDRs", [])) == len(self._cluster.families),
            f"node/{node.name}",
        )["spec"]
        key = "&".join(subnet.replace("/", "-") for subnet in spec["podCIDRs"])
        value: dict[str, Any] = {"PublicIP": node.address, "BackendType": self._backend}
        if "6" in self._cluster.families:
            value["PublicIPv6"] = node.address6
        self._cluster.control.etcd.put(f"subnets/{key}", json.dumps(value))

    def _is_ready(self, node: Node) -> bool:
        if not node.processes["flanneld"].is_running:
            raise LabError(f"flanneld of {node.name} has ended:\n{node.log('flanneld')[-3000:]}")
        try:
            status, _ = web.get(node.netns, "127.0.0.1", HEALTH_PORT, "/readyz")
        except OSError:
            return False
        return status == http.HTTPStatus.OK

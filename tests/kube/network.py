"""How the pods' network gets onto the nodes."""

from __future__ import annotations

import http
import json
import platform
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from conformance.real.oci import ARCHITECTURES
from tests.kube.control import PODS, SERVER
from tests.kube.node import CNI_BIN, CNI_CONF
from tests.kube.underlay import CHECKOUT
from tests.lab import web
from tests.lab.space import ROOT, LabError, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.cluster import Cluster
    from tests.kube.kubectl import Document
    from tests.kube.node import Node

HEALTH_PORT = 8081
DAEMON = f"{CHECKOUT}/dist/flanneld/flanneld"
MANIFEST = ROOT / "deploy/kube-flannel.yml"
IMAGE = ROOT / f"dist/image/cni-flannel-{ARCHITECTURES[platform.machine()]}.tar"
GO_PLUGINS = "/usr/lib/cni"
NET_CONF = "/etc/kube-flannel/net-conf.json"
USER = "flannel"
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

    def start(self, node: Node, *flags: str) -> None:
        """Start the daemon of a node that has joined."""


class HostProcesses:
    """The daemon as a process of each node, as systemd would start it; the subnets are podCIDRs."""

    def __init__(self, backend: str = "vxlan") -> None:
        self.backend = backend

    def begin(self, cluster: Cluster) -> None:
        """Give the daemons an identity, which may do what Go's may, and nothing else."""
        self.cluster = cluster
        cluster.control.authority.kubeconfig("flannel", SERVER, f"/CN={USER}")
        cluster.kubectl.apply(*access())

    def join(self, node: Node) -> None:
        """Install the plugins, start the daemon, and write the conflist when it is ready."""
        node.run(DAEMON, "install", "--no-units", "--from", f"{CHECKOUT}/dist/cni-flannel", CNI_BIN)
        node.run("cp", f"{GO_PLUGINS}/portmap", f"{GO_PLUGINS}/loopback", CNI_BIN)
        self.start(node)
        await_ready(node)
        node.write(f"{CNI_CONF}/10-flannel.conflist", CONFLIST)

    def start(self, node: Node, *flags: str) -> None:
        """Start the daemon of a node."""
        node.write(NET_CONF, self.configuration())
        node.start_daemon(
            *("env", f"NODE_NAME={node.name}", DAEMON, "--kube-subnet-mgr", "--ip-masq"),
            *("--kubeconfig-file", self.cluster.control.authority.path("flannel.conf")),
            *("--healthz-port", str(HEALTH_PORT), *flags),
        )

    def configuration(self) -> dict[str, Any]:
        """Give the network's, as the ConfigMap has it."""
        return configuration(self.backend, self.cluster.families)


class DaemonSet:
    """The manifest, applied; the image is there on each node, as from a registry."""

    def __init__(self, backend: str = "vxlan") -> None:
        self.backend = backend

    def begin(self, cluster: Cluster) -> None:
        """Do nothing yet: there may be no node that has the image."""
        self.cluster = cluster
        self._have_image: set[str] = set()

    def join(self, node: Node) -> None:
        """Import the image, put what kubernetes-cni brings beside it, and apply the manifest."""
        for each in self.cluster.nodes:
            if each.name not in self._have_image:
                each.import_image(IMAGE.read_bytes())
                each.run("cp", f"{GO_PLUGINS}/portmap", f"{GO_PLUGINS}/loopback", CNI_BIN)
                self._have_image.add(each.name)
        self.start(node)

    def start(self, node: Node, *flags: str) -> None:
        """Apply the manifest, with more flags for the daemon."""
        assert node in self.cluster.nodes
        self.cluster.kubectl.apply(*manifest(self.configuration(), *flags))

    def configuration(self) -> dict[str, Any]:
        """Give the network's, as the ConfigMap has it."""
        return configuration(self.backend, self.cluster.families)


def manifest(net_conf: dict[str, Any], *flags: str) -> Iterator[Document]:
    """Give the manifest's objects, with this configuration and more flags for the daemon."""
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        if document["kind"] == "ConfigMap":
            document["data"]["net-conf.json"] = json.dumps(net_conf)
        if document["kind"] == "DaemonSet":
            (daemon,) = document["spec"]["template"]["spec"]["containers"]
            daemon["args"] += flags
        yield document


def configuration(backend: str, families: str) -> dict[str, Any]:
    """Give a network's configuration, with the podCIDRs of the control plane."""
    return {
        "Network": PODS[4],
        "IPv6Network": PODS[6],
        "EnableIPv6": "6" in families,
        "Backend": {"Type": backend},
    }


def await_ready(node: Node) -> None:
    """Wait until the daemon of a node is ready. LabError with what it has said."""
    try:
        what = f"flanneld of {node.name} is ready"
        until(what, lambda: readiness(node)[0], patience_s=180)  # a podCIDR can take its time
    except LabError as error:
        raise LabError(f"{error}\n{readiness(node)[1]}\n{node.log('flanneld')[-3000:]}") from None


def readiness(node: Node) -> tuple[bool, str]:
    """Whether the daemon of a node is ready, and what it says. LabError if it has ended."""
    if not node.processes["flanneld"].is_running:
        raise LabError(f"flanneld of {node.name} has ended:\n{node.log('flanneld')[-3000:]}")
    try:
        status, page = web.get(node.netns, "127.0.0.1", HEALTH_PORT, "/readyz")
    except OSError as error:
        return False, str(error)
    return status == http.HTTPStatus.OK, page.decode()


def access() -> Iterator[Document]:
    """Say what the daemons may do."""
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get"]},
    ]
    kind = {"apiVersion": f"{group}/v1", "metadata": {"name": "flannel"}}
    yield {**kind, "kind": "ClusterRole", "rules": rules}
    yield {
        **kind,
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "flannel"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
    }

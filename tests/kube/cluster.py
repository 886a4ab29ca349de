"""The whole: underlay, control plane, nodes, and what brings the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.kube import binaries
from tests.kube.control import ControlPlane
from tests.kube.network import HostProcesses
from tests.kube.node import Node
from tests.kube.underlay import Underlay

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kube.network import Network


class Pod(NamedTuple):
    """A running pod: the path of its network namespace on its node, and its addresses by family."""

    name: str
    node: Node
    inside: str
    addresses: dict[int, str]

    @property
    def netns(self) -> Path:
        """Path of its network namespace as seen from here."""
        return self.node.path(self.inside)


class Cluster:
    """A context manager; everything ends with it, or with this process."""

    def __init__(self, families: str = "4", network: Network | None = None) -> None:
        self.families = families
        self.network: Network = network or HostProcesses()
        self.nodes: list[Node] = []
        self._numbers = 0
        self.underlay = Underlay(binaries.build())
        self.control = ControlPlane(self.underlay, families)
        self.kubectl = self.control.kubectl
        try:
            self.control.start()
            self.network.begin(self)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: all that it made is gone then."""
        self.control.stop()
        self.underlay.close()
        for node in self.nodes:
            node.close()

    def add_node(self) -> Node:
        """Make one more node and start its programs; it has no network yet."""
        self._numbers += 1
        node = Node(self.underlay, self._numbers, self.control.authority, self.families)
        self.nodes.append(node)
        node.start_programs()
        return node

    def start(self, count: int) -> Self:
        """Add so many nodes with their network, and wait until they are Ready."""
        added = [self.add_node() for _ in range(count)]
        for node in added:
            self.network.join(node)
        self.await_nodes(added)
        return self

    def remove_node(self, node: Node) -> None:
        """Switch a node off for good, and delete it from Kubernetes."""
        self.nodes.remove(node)
        node.shut_down()
        self.kubectl.delete(f"node/{node.name}")

    def pod(self, name: str) -> Pod:
        """Wait until a pod is Ready, and look it up. LabError."""
        found = self.kubectl.until(
            f"pod {name} is Ready", lambda pod: condition(pod, "Ready") == "True", f"pod/{name}"
        )
        node = next(node for node in self.nodes if node.name == found["spec"]["nodeName"])
        status = found["status"]
        container = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        addresses = [entry["ip"] for entry in status["podIPs"]]
        by_family = {6 if ":" in address else 4: address for address in addresses}
        return Pod(name, node, node.netns_of(container), by_family)

    def await_nodes(self, nodes: list[Node], *, ready: bool = True) -> None:
        """Wait until nodes are registered, and Ready or not. LabError."""
        wanted = "True" if ready else "False"
        for node in nodes:
            self.kubectl.until(
                f"{node.name} says Ready={wanted}",
                lambda found: condition(found, "Ready") == wanted,
                f"node/{node.name}",
            )


def condition(document: dict[str, Any], kind: str) -> str:
    """Give a condition's status, "" if the object does not have it."""
    conditions = document["status"].get("conditions", [])
    return next((each["status"] for each in conditions if each["type"] == kind), "")

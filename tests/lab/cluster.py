"""A whole network: underlay, etcd with the network's configuration, nodes with daemons and pods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from tests.flanneld.etcdserver import EtcdServer
from tests.lab.node import Node
from tests.lab.underlay import GATEWAY, Underlay

if TYPE_CHECKING:
    from tests.lab.node import Pod

_CUT = """nft -f - <<'END'
table inet lab {
    chain input { type filter hook input priority -10; tcp sport 2379 drop; }
    chain output { type filter hook output priority -10; tcp dport 2379 drop; }
}
END
"""
NETWORK, NETWORK6 = "10.244.0.0/16", "fd00:f1::/48"


def configuration(backend: str, families: str = "4", **backend_keys: Any) -> dict[str, Any]:
    """Give the network's configuration; ``families`` is "4", "6" or "46"."""
    return {
        "Network": NETWORK,
        "EnableIPv4": "4" in families,
        "EnableIPv6": "6" in families,
        "IPv6Network": NETWORK6,
        "Backend": {"Type": backend, **backend_keys},
    }


class Cluster:
    """A context manager; everything ends with it, or with this process."""

    def __init__(self, conf: dict[str, Any]) -> None:
        self.conf = conf
        self.families = [f for f in (4, 6) if conf[f"EnableIPv{f}"]]
        self.nodes: list[Node] = []
        self.underlay = Underlay()
        enter = ("nsenter", "--target", str(self.underlay.pid), "--net", "--")
        folder = self.underlay.path("/run/etcd")
        folder.mkdir()
        self.etcd = EtcdServer(folder, ports=(2379, 2380), host=GATEWAY, enter=enter)
        try:
            self.etcd.start()
            self.etcd.configure(**conf)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.etcd.stop()
        self.underlay.close()
        for node in self.nodes:
            node.close()

    def add_node(self) -> Node:
        """Make one more node; its daemon is not started."""
        self.nodes.append(Node(self.underlay, len(self.nodes) + 1))
        return self.nodes[-1]

    def start(self, count: int, *flags: str, pods: int = 1, known: bool = True) -> Self:
        """Add nodes with running daemons and attached pods, all ready and knowing each other.

        Without ``known``, only the new ones are waited for.
        """
        added = [self.add_node() for _ in range(count)]
        for node in added:
            node.start_daemon(*flags)
        if known:
            self.settle()
        for node in added:
            node.await_ready()
            for _ in range(pods):
                node.attach()
        return self

    def settle(self) -> None:
        """Wait until every daemon is ready and knows all others. LabError."""
        running = [node for node in self.nodes if node.daemon is not None]
        for node in running:
            node.await_peers(len(running) - 1)

    def key(self, node: Node) -> str:
        """Give the subnet's part of a node's key in etcd."""
        leases = self.etcd.leases().items()
        (found,) = (key for key, value in leases if json.loads(value)["PublicIP"] == node.address)
        return found

    def cut(self, *nodes: Node) -> None:
        """Part nodes from etcd: their packets are lost, and their connections do not end."""
        for node in nodes:
            node.sh(_CUT)

    def mend(self, *nodes: Node) -> None:
        """Let nodes reach etcd again."""
        for node in nodes:
            node.sh("nft delete table inet lab")

    @property
    def pods(self) -> list[Pod]:
        return [pod for node in self.nodes for pod in node.pods]

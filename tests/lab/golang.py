"""A node of the Go daemon, by hand: its lease as Go writes it, its device as Go makes it.

The text of keys and values, and the commands, are those of flannel's documentation and of what its
vxlan backend asks of the kernel; nothing of them goes through our daemon.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from tests.lab.node import SUBNET_ENV
from tests.lab.space import LabError

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster
    from tests.lab.node import Node

MAC, VNI = "c6:d2:32:6f:8f:44", 1
SUBNET = IPv4Network("10.244.200.0/24")


def value(public_ip: str, mac: str = MAC) -> str:
    """Write a vxlan lease's value as Go's encoder does: compact, in the order of its fields."""
    document = {
        "PublicIP": public_ip,
        "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": VNI, "VtepMAC": mac},
    }
    return json.dumps(document, separators=(",", ":"))


def add_go_node(cluster: Cluster) -> Node:
    """Make a node that is not ours: lease, device, subnet.env, and a path to every other lease."""
    node = cluster.add_node()
    cluster.etcd.put(f"subnets/{str(SUBNET).replace('/', '-')}", value(node.address))
    node.sh(
        f"ip link add flannel.1 address {MAC} mtu 1450 type vxlan id {VNI} dev eth0"
        f" local {node.address} dstport 8472 nolearning\n"
        f"ip address add {SUBNET.network_address}/32 dev flannel.1\n"
        "ip link set flannel.1 up"
    )
    for key, text in cluster.etcd.leases().items():
        lease = json.loads(text)
        if lease["PublicIP"] != node.address:
            base = key.partition("-")[0]
            node.sh(
                f"ip neighbour replace {base} lladdr {lease['BackendData']['VtepMAC']}"
                " dev flannel.1 nud permanent\n"
                f"bridge fdb replace {lease['BackendData']['VtepMAC']} dev flannel.1"
                f" dst {lease['PublicIP']} self permanent\n"
                f"ip route replace {key.replace('-', '/')} via {base} dev flannel.1 onlink"
            )
    gateway = IPv4Address(int(SUBNET.network_address) + 1)
    node.path(SUBNET_ENV).write_text(
        f"FLANNEL_NETWORK={cluster.conf['Network']}\nFLANNEL_SUBNET={gateway}/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    )
    return node


def take_over(node: Node) -> None:
    """Let our daemon find what Go's left on this very node: device, address, routes of a peer gone.

    LabError if the device that is there is replaced, not kept.
    """
    node.sh(
        "ip neighbour replace 10.244.250.0 lladdr 02:00:00:00:00:fa dev flannel.1 nud permanent\n"
        "bridge fdb replace 02:00:00:00:00:fa dev flannel.1 dst 192.168.64.250 self permanent\n"
        "ip route replace 10.244.250.0/24 via 10.244.250.0 dev flannel.1 onlink"
    )
    (before,) = node.ip("link", "show", "flannel.1")
    node.start_daemon()
    node.await_ready()
    (after,) = node.ip("link", "show", "flannel.1")
    if (after["ifindex"], after["address"]) != (before["ifindex"], MAC):
        raise LabError(f"the device is not the one that was there: {before}, {after}")

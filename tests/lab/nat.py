"""A node behind a router and address translator, which alone knows the address that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster
    from tests.lab.node import Node

PUBLIC, PRIVATE, GATEWAY = "198.51.100.200", "172.16.5.2", "172.16.5.254"

_TRANSLATOR = f"""
ip link add inside type bridge
ip address add {GATEWAY}/24 dev inside
ip link set inside up
ip address add {PUBLIC}/32 dev lo
nft -f - <<'END'
table ip translator {{
    chain before {{
        type nat hook prerouting priority dstnat;
        ip daddr {PUBLIC} dnat to {PRIVATE}
    }}
    chain after {{
        type nat hook postrouting priority srcnat;
        ip saddr {PRIVATE} oifname underlay snat to {PUBLIC}
    }}
}}
END
"""


def add_node_behind_nat(cluster: Cluster) -> Node:
    """Make a node with a private address, which the underlay maps to a public one."""
    node = cluster.add_node()
    cluster.underlay.sh(f"{_TRANSLATOR}\nip link set {node.port} master inside")
    node.sh(
        "ip address flush dev eth0 scope global\n"
        f"ip address add {PRIVATE}/24 dev eth0; ip route replace default via {GATEWAY}"
    )
    node.address = PRIVATE
    for one in cluster.nodes:
        # A veth pair leaves checksums to the receiver. A translator cannot mend the outer one of a
        # packet whose inner one is not there yet: on a real wire both are.
        one.run("ethtool", "-K", "eth0", "tx", "off")
    return node

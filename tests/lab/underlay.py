"""The network between the nodes: a bridge in namespaces of its own, and the world outside.

    node 1 eth0 192.168.64.1 --+
    node 2 eth0 192.168.64.2 --+-- underlay 192.168.64.254 -- the world, 203.0.113.1 on lo
    ...                        |
    etcd, on 192.168.64.254 ---+

IPv6 alike: fd00:64::1, fd00:64::fe, 2001:db8::1. The world has no route to pods.
"""

from __future__ import annotations

from tests.lab.space import Space

GATEWAY, GATEWAY6 = "192.168.64.254", "fd00:64::fe"
WORLD, WORLD6 = "203.0.113.1", "2001:db8::1"

# The network, for the shell that holds the namespaces.
NETWORK = f"""
ip link set lo up
ip address add {WORLD}/32 dev lo
ip address add {WORLD6}/128 dev lo
ip link add underlay address 02:00:00:00:00:fe type bridge
ip address add {GATEWAY}/24 dev underlay
ip address add {GATEWAY6}/64 dev underlay nodad
ip link set underlay up
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""

_SETUP = f"""
set -e
mount -t tmpfs -o mode=755 lab /run
mount -t tmpfs -o mode=755 lab /var/lib
mount -t sysfs -o ro lab /sys
mkdir -p /run/netns
{NETWORK}
echo ready
read -r _ || true
"""


class Underlay(Space):
    """Its holder is the first process of the lab's PID namespace: the lab ends with it."""

    def __init__(self) -> None:
        unshare = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        super().__init__("the underlay", [*unshare, "sh", "-c", _SETUP])

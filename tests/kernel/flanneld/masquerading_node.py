"""A node with a pod, a peer node's pod and the world outside, for the tests of traffic rules.

The calling test's own namespace is the node: it forwards between three veth pairs.

    pod 10.42.1.2 -- cni0 10.42.1.1 | node | 192.168.7.1 -- outside 192.168.7.2
                                           | 192.168.8.1 -- peer's pod 10.42.2.2
"""

from __future__ import annotations

import os
import socket

from tests.kernel.privatens import new_pod, sh
from tests.namespaces import CLONE_NEWNET, setns

POD, GATEWAY, PEER_POD = "10.42.1.2", "10.42.1.1", "10.42.2.2"
OUTSIDE, NODE, NODE_TO_PEER = "192.168.7.2", "192.168.7.1", "192.168.8.1"
GROUP = "239.1.2.3"


class Node:
    """Makes the namespaces; they end with the test."""

    def __init__(self) -> None:
        self.pod = self._attach("cni0", GATEWAY + "/24", POD + "/24", GATEWAY)
        self.outside = self._attach("eth0", NODE + "/24", OUTSIDE + "/24", NODE)
        self.peer = self._attach("eth1", NODE_TO_PEER + "/24", "192.168.8.2/24", NODE_TO_PEER)
        sh(f"nsenter -t {self.peer} -n ip address add {PEER_POD}/32 dev uplink")
        sh("ip route add 10.42.2.0/24 via 192.168.8.2")
        sh("ip route add 224.0.0.0/4 dev eth0")
        sh("sysctl -qw net.ipv4.ip_forward=1")

    @staticmethod
    def _attach(name: str, ours: str, theirs: str, gateway: str) -> int:
        pid = new_pod()
        sh(
            f"ip link add {name} type veth peer name uplink netns {pid}\n"
            f"ip address add {ours} dev {name}; ip link set {name} up\n"
            f"nsenter -t {pid} -n bash -ec 'ip link set lo up; ip address add {theirs} dev uplink;"
            f" ip link set uplink up; ip route add default via {gateway}'"
        )
        return pid

    def udp(self, pid: int | None, address: str = "", port: int = 0) -> socket.socket:
        """Open a UDP socket in a namespace (None: the node's own)."""
        made = socket_in(pid)
        made.bind((address, port))
        return made

    def source_seen(
        self, sender: socket.socket, receiver: socket.socket, to: str, port: int = 7000
    ) -> str:
        """Send one datagram, and give the source address that it arrives with."""
        word = os.urandom(8)
        sender.sendto(word, (to, port))
        data, (address, _) = receiver.recvfrom(100)
        assert data == word
        return str(address)


def socket_in(pid: int | None, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
    """Open an IPv4 socket in a process's network namespace (None: this one's)."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if pid is not None:
            _setns(f"/proc/{pid}/ns/net")
        made = socket.socket(socket.AF_INET, kind, protocol)
    finally:
        _setns(f"/proc/self/fd/{home}")
        os.close(home)
    made.settimeout(20)
    return made


def _setns(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
    finally:
        os.close(fd)

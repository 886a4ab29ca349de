"""A node with the forwarder of the udp backend, and a peer.

The test's own namespace is the node, 192.168.9.1 with the pods 10.44.1.0/24; a pod's namespace is
the peer, 192.168.9.2 with 10.44.2.0/24.  Where the peer is a socket of the test, it sees and sends
the datagrams as they are.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from flanneld.forward.forwarding import Forwarding
from flanneld.forward.keeper import Keeper
from tests.kernel.flanneld.masquerading_node import socket_in
from tests.kernel.privatens import new_pod, private, sh
from tests.property.test_forward_packet import words_sum

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IP_RECVERR, IP_RECVTTL = 11, 12  # linux/in.h
PORT = 8285
MTU = 1472
NODE, PEER = IPv4Address("192.168.9.1"), IPv4Address("192.168.9.2")
PODS, PEER_PODS = IPv4Network("10.44.1.0/24"), IPv4Network("10.44.2.0/24")
WANTED = Forwarding(
    device="flannel0",
    mtu=MTU,
    local=NODE,
    port=PORT,
    network=IPv4Network("10.44.0.0/16"),
    subnet=PODS,
    nodes={PEER_PODS: PEER},
)


def attach() -> int:
    """Make the peer's namespace and the underlay."""
    peer = new_pod()
    sh(
        f"ip link add eth0 type veth peer name eth0 netns {peer}\n"
        f"ip address add {NODE}/24 dev eth0; ip link set eth0 up\n"
        f"nsenter -t {peer} -n bash -ec 'ip link set lo up; ip address add {PEER}/24 dev eth0;"
        " ip link set eth0 up'"
    )
    return peer


def route(pid: int | None, own: IPv4Network) -> None:
    """Do what the reconciler does: the device's address, and the network's route."""
    enter = "" if pid is None else f"nsenter -t {pid} -n "
    sh(
        f"{enter}ip address add {own[0]}/32 dev flannel0\n"
        f"{enter}ip route add 10.44.0.0/16 dev flannel0"
    )


@asynccontextmanager
async def node(wanted: Forwarding = WANTED) -> AsyncIterator[Keeper]:
    """This namespace's forwarder, as the daemon keeps it."""
    keeper = Keeper(lambda: None)
    assert await keeper.apply(wanted) == ()
    route(None, PODS)
    try:
        yield keeper
    finally:
        await keeper.close()


def peer_socket(peer: int, port: int = PORT) -> socket.socket:
    made = socket_in(peer)
    made.bind((str(PEER), port))
    return made


def udp_packet(
    payload: bytes,
    *,
    ttl: int = 60,
    source: str = "10.44.2.9",
    destination: str = str(PODS[0]),
    port: int = 7,
    options: bytes = b"",
) -> bytes:
    """A whole IPv4 packet from a pod of the peer to this node's device, if not to another."""
    hosts = socket.inet_aton(source) + socket.inet_aton(destination)
    udp = struct.pack("!HHHH", 9, port, 8 + len(payload), 0) + payload
    head = bytearray(
        struct.pack(
            "!BBHHHBBH",
            *(0x45 + len(options) // 4, 0, 20 + len(options) + len(udp), 0, 0x4000, ttl, 17, 0),
        )
        + hosts
        + options
    )
    struct.pack_into("!H", head, 10, words_sum(bytes(head)))
    return bytes(head) + udp


def receiver(port: int = 7) -> socket.socket:
    made = socket_in(None)
    made.bind((str(PODS[0]), port))
    made.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    return made


def scenario(test: Any) -> Any:
    """Run a coroutine as a test in a private namespace."""

    @private
    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run

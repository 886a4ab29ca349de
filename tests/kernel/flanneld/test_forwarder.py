"""The forwarder of the udp backend: what is on the wire, what is delivered, and what it survives.

The test's own namespace is the node, 192.168.9.1 with the pods 10.44.1.0/24; a pod's namespace is
the peer, 192.168.9.2 with 10.44.2.0/24.  Where the peer is a socket of the test, it sees and sends
the datagrams as they are.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import socket
import struct
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.kernel.flannel_node import socket_in

from bench.udp import loop
from flanneld.forward.forwarding import Forwarding
from flanneld.forward.keeper import Keeper
from tests.kernel.privatens import needs_root, new_pod, private, sh, spawn_inside
from tests.property.test_forward_packet import words_sum

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.kernel, needs_root]

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


def udp_packet(payload: bytes, *, ttl: int = 60, source: str = "10.44.2.9", port: int = 7) -> bytes:
    """A whole IPv4 packet from a pod of the peer to this node's device."""
    hosts = socket.inet_aton(source) + PODS[0].packed
    udp = struct.pack("!HHHH", 9, port, 8 + len(payload), 0) + payload
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, ttl, 17, 0) + hosts
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


@scenario
async def test_each_datagram_is_one_whole_packet_with_right_checksums() -> None:
    wire = peer_socket(attach())
    async with node():
        pod = socket_in(None)
        sizes = [1, 2, 700, MTU - 28, MTU - 28, MTU - 28, 33, 0, MTU - 28]
        for size in sizes:
            pod.sendto(bytes(size), (str(PEER_PODS[5]), 5000))
        for size in sizes:
            data, (address, port) = wire.recvfrom(1 << 16)
            assert (address, port) == (str(NODE), PORT)
            assert len(data) == struct.unpack_from("!H", data, 2)[0] == size + 28
            assert data[8] == 63
            assert data[16:20] == PEER_PODS[5].packed
            assert words_sum(data[:20]) == 0
            length = struct.pack("!HH", 17, len(data) - 20)
            assert words_sum(data[12:20] + length + data[20:]) == 0


@scenario
async def test_tcp_segments_are_whole_on_the_wire() -> None:
    """A stream's segments come off the device one by one, never as one large packet."""
    wire = peer_socket(attach())
    async with node():
        pod = socket_in(None, socket.SOCK_STREAM)
        pod.setblocking(False)
        with pytest.raises(BlockingIOError):
            pod.connect((str(PEER_PODS[5]), 5000))
        syn = wire.recv(1 << 16)
        ours, theirs = syn[12:16], syn[16:20]
        sequence = struct.unpack_from("!I", syn, 24)[0]
        port = struct.unpack_from("!H", syn, 20)[0]
        tcp = bytearray(
            struct.pack("!HHIIBBHHH", 5000, port, 1, sequence + 1, 6 << 4, 0x12, 65000, 0, 0)
            + struct.pack("!BBH", 2, 4, MTU - 40)
        )
        pseudo = theirs + ours + struct.pack("!HH", 6, len(tcp))
        struct.pack_into("!H", tcp, 16, words_sum(pseudo + bytes(tcp)))
        head = bytearray(
            struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 9, 6, 0) + theirs + ours
        )
        struct.pack_into("!H", head, 10, words_sum(bytes(head)))
        wire.sendto(head + tcp, (str(NODE), PORT))
        while wire.recv(1 << 16)[33] != 0x10:  # its ACK; the SYN may come again before
            pass
        pod.send(bytes(range(256)) * 40)
        received = bytearray()
        while len(received) < 10240:
            data = wire.recv(1 << 16)
            assert len(data) == struct.unpack_from("!H", data, 2)[0] <= MTU
            assert words_sum(data[12:20] + struct.pack("!HH", 6, len(data) - 20) + data[20:]) == 0
            received += data[20 + (data[32] >> 4) * 4 :]
        assert received == bytes(range(256)) * 40


@scenario
async def test_what_comes_is_delivered_with_one_less_to_live() -> None:
    wire = peer_socket(attach())
    async with node():
        pod = receiver()
        wire.sendto(udp_packet(b"dead", ttl=1), (str(NODE), PORT))
        wire.sendto(udp_packet(b"hello", ttl=33), (str(NODE), PORT))
        data, ancillary, _, (source, _) = pod.recvmsg(100, 100)
        assert (data, source) == (b"hello", "10.44.2.9")
        assert [struct.unpack("i", value) for *_, value in ancillary] == [(32,)]


@scenario
async def test_a_stranger_s_datagrams_are_dropped_unless_allowed() -> None:
    peer = attach()
    sh(f"nsenter -t {peer} -n ip address add 192.168.9.66/24 dev eth0")
    stranger = socket_in(peer)
    stranger.bind(("192.168.9.66", PORT))
    moved = peer_socket(peer, 4444)  # a NAT on the way may change the port
    async with node() as keeper:
        pod = receiver()
        stranger.sendto(udp_packet(b"stranger"), (str(NODE), PORT))
        moved.sendto(udp_packet(b"peer"), (str(NODE), PORT))
        assert pod.recv(100) == b"peer"
        pod.close()
        assert await keeper.apply(replace(WANTED, strict=False)) == ()
        route(None, PODS)
        pod = receiver()
        stranger.sendto(udp_packet(b"stranger"), (str(NODE), PORT))
        assert pod.recv(100) == b"stranger"


@scenario
async def test_nonsense_is_survived() -> None:
    wire = peer_socket(attach())
    chance = random.Random(5)
    good = udp_packet(b"good")
    nonsense = [b"", b"x", good[:19], b"\x65" + good[1:], good[:-1], b"\x46" + good[1:]]
    nonsense += [chance.randbytes(chance.randrange(1, 1400)) for _ in range(200)]
    nonsense += [b"\x45" + chance.randbytes(chance.randrange(19, 90)) for _ in range(200)]
    async with node():
        pod = receiver()
        for data in nonsense:
            wire.sendto(data, (str(NODE), PORT))
        wire.sendto(good + b"trailer", (str(NODE), PORT))
        assert pod.recv(2000) == b"good"


@scenario
async def test_a_packet_without_a_node_is_answered() -> None:
    attach()
    async with node():
        pod = socket_in(None)
        pod.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)  # or a net unreachable is kept from us
        pod.connect(("10.44.77.1", 5000))
        pod.send(b"x")
        with pytest.raises(OSError, match="Network is unreachable") as caught:
            pod.recv(100)
        assert caught.value.errno == errno.ENETUNREACH


@scenario
async def test_a_new_table_is_taken_by_the_running_process() -> None:
    wire = peer_socket(attach())
    async with node(replace(WANTED, nodes={})) as keeper:
        before = children()
        assert await keeper.apply(WANTED) == ()
        pod = socket_in(None)
        pod.settimeout(0.05)
        wire.settimeout(0.05)
        for _ in range(200):
            pod.sendto(b"x", (str(PEER_PODS[5]), 5000))
            try:
                wire.recv(100)
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("the new node was never used")
        assert children() == before


def children() -> list[str]:
    return sorted(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@scenario
async def test_a_killed_process_is_replaced_and_the_device_outlives_it() -> None:
    wire = peer_socket(attach())
    ended = asyncio.Event()
    keeper = Keeper(ended.set)
    assert await keeper.apply(WANTED) == ()
    route(None, PODS)
    device = sh("ip -j link show flannel0; ip route show dev flannel0")
    assert keeper.process_id is not None
    os.kill(keeper.process_id, 9)
    await asyncio.wait_for(ended.wait(), 30)
    pod = receiver()
    wire.sendto(udp_packet(b"while nobody forwards"), (str(NODE), PORT))
    assert await keeper.apply(WANTED) == ()
    assert pod.recv(100) == b"while nobody forwards"
    assert sh("ip -j link show flannel0; ip route show dev flannel0") == device
    await keeper.close()
    assert "flannel0" not in sh("ip -o link")


@scenario
async def test_a_device_that_is_down_or_gone_is_put_right() -> None:
    wire = peer_socket(attach())
    async with node() as keeper:
        sh("ip link set flannel0 down mtu 1300")
        assert await keeper.apply(WANTED) == ()
        assert "mtu 1472" in sh("ip -o link show flannel0 up")
        sh("ip link delete flannel0")
        assert await keeper.apply(WANTED) == ()
        route(None, PODS)
        pod = receiver()
        wire.sendto(udp_packet(b"again"), (str(NODE), PORT))
        assert pod.recv(100) == b"again"


@scenario
async def test_somebody_else_s_device_of_that_name_is_not_taken_for_ours() -> None:
    attach()
    ended = asyncio.Event()
    keeper = Keeper(ended.set)
    assert await keeper.apply(WANTED) == ()
    sh("ip link delete flannel0; ip link add flannel0 type bridge")
    await asyncio.wait_for(ended.wait(), 30)
    assert "make the TUN device flannel0" in str(await keeper.apply(WANTED))
    ended.clear()
    sh("ip link delete flannel0")
    await asyncio.wait_for(ended.wait(), 30)  # it asks to be tried again
    assert await keeper.apply(WANTED) == ()
    await keeper.close()


@scenario
async def test_what_stands_in_the_way_is_named() -> None:
    attach()
    sh("ip link add flannel0 type bridge")
    keeper = Keeper(lambda: None)
    assert "make the TUN device flannel0" in str(await keeper.apply(WANTED))
    sh("ip link delete flannel0")
    other = socket_in(None)
    other.bind((str(NODE), PORT))
    assert "bind UDP port 8285 at 192.168.9.1" in str(await keeper.apply(WANTED))
    other.close()
    assert await keeper.apply(WANTED) == ()
    assert await keeper.apply(None) == ()
    assert "flannel0" not in sh("ip -o link")


# ------------------------------------------------------------------- whole nodes on both sides


def keep(wanted: Forwarding) -> None:
    """A node's forwarder in the namespace of the calling process, for ever."""

    async def run() -> None:
        async with peer_node(wanted):
            await asyncio.Event().wait()

    asyncio.run(run())


@asynccontextmanager
async def peer_node(wanted: Forwarding) -> AsyncIterator[None]:
    keeper = Keeper(lambda: None)
    assert await keeper.apply(wanted) == ()
    yield
    await keeper.close()


def start_peer(peer: int, kind: str) -> None:
    """Start the peer's forwarder: ours, or one that reads and sends each packet by itself."""
    theirs = replace(WANTED, local=PEER, nodes={PODS: NODE})
    sys.stdout.flush()
    spawn_inside(peer, (lambda: keep(theirs)) if kind == "ours" else (lambda: loop(2)))
    sh(f"until nsenter -t {peer} -n ip -o link show flannel0 up 2>/dev/null; do sleep 0.05; done")
    route(peer, PEER_PODS)


def serve(size: int) -> None:
    """Take one connection and so many bytes; answer with their digest, and as many others."""
    with socket.create_server((str(PEER_PODS[0]), 5000)) as server:
        connection, _ = server.accept()
        digest, left = hashlib.sha256(), size
        while left:
            data = connection.recv(1 << 16)
            digest.update(data)
            left -= len(data)
        connection.sendall(digest.digest())
        connection.sendall(random.Random(size).randbytes(size))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def exchange(size: int) -> None:
    """Send so many bytes to the peer, and see what comes back."""
    data = random.Random(1).randbytes(size)
    stream = socket_in(None, socket.SOCK_STREAM)
    stream.connect((str(PEER_PODS[0]), 5000))
    stream.sendall(data)
    answer = bytearray()
    while part := stream.recv(1 << 16):
        answer += part
    assert answer[:32] == hashlib.sha256(data).digest()
    assert answer[32:] == random.Random(size).randbytes(size)


@pytest.mark.parametrize("narrow", [False, True], ids=["", "narrow"])
@pytest.mark.parametrize("kind", ["ours", "one by one"])
@private
def test_a_stream_passes_unharmed_both_ways(kind: str, narrow: bool) -> None:  # noqa: FBT001
    size = 400_000 if narrow else 8_000_000
    peer = attach()
    if narrow:  # than the interface says: datagrams are fragmented
        sh(f"ip route add {PEER}/32 dev eth0 mtu 1400")
    start_peer(peer, kind)
    spawn_inside(peer, lambda: serve(size))
    sh(f"until nsenter -t {peer} -n ss -Hltn | grep -q :5000; do sleep 0.05; done")

    async def run() -> None:
        async with node():
            exchange(size)

    asyncio.run(run())

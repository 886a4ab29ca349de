"""The forwarder of the udp backend: what is on the wire, and what is delivered."""

from __future__ import annotations

import errno
import random
import socket
import struct
from dataclasses import replace

import pytest

from tests.kernel.flanneld.masquerading_node import socket_in
from tests.kernel.flanneld.udp_node import (
    IP_RECVERR,
    MTU,
    NODE,
    PEER_PODS,
    PODS,
    PORT,
    WANTED,
    attach,
    node,
    peer_socket,
    receiver,
    route,
    scenario,
    udp_packet,
)
from tests.kernel.privatens import needs_root, sh
from tests.property.test_forward_packet import words_sum

pytestmark = [pytest.mark.kernel, needs_root]


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
async def test_only_packets_from_pods_to_this_node_s_pods_come_in() -> None:
    """Whoever can send with a node's address would else reach all that this node reaches."""
    wire = peer_socket(attach())
    sh(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0"
        " net.ipv4.conf.all.accept_source_route=1\n"
        "ip link add lan type veth peer name far; ip link set far up; ip link set lan up\n"
        "ip address add 10.9.9.1/24 dev lan; ip address add 10.44.3.1/24 dev lan"
    )
    lan = watcher("lan", "10.9.9.9", "10.44.3.9", "192.168.9.66")
    through = b"\x83\x07\x04" + socket.inet_aton("10.9.9.9") + b"\0"
    bad = [
        udp_packet(b"bad", destination="10.9.9.9"),
        udp_packet(b"bad", destination="10.44.3.9"),  # another node's pod
        udp_packet(b"bad", source="8.8.8.8", destination="10.9.9.9"),
        udp_packet(b"bad", source="8.8.8.8"),
        udp_packet(b"bad", source="192.168.9.2"),
        udp_packet(b"bad", destination="192.168.9.1"),
        udp_packet(b"bad", destination="255.255.255.255"),
        udp_packet(b"bad", destination="224.0.0.1"),
        udp_packet(b"bad", options=through),
        udp_packet(b"bad", options=b"\x01" + through[:-1]),
        udp_packet(b"bad", options=b"\x44\x40\x05\0"),  # longer than the header
    ]
    async with node():
        pod = receiver()
        for data in (*bad, *bad, udp_packet(b"good", options=b"\x01\x01\x01\0")):
            wire.sendto(data, (str(NODE), PORT))
        wire.sendto(udp_packet(b"good"), (str(NODE), PORT))
        assert [pod.recv(100), pod.recv(100)] == [b"good", b"good"]
        with pytest.raises(BlockingIOError):
            lan.recv(2000)


def watcher(link: str, *hosts: str) -> socket.socket:
    """See each IPv4 packet that leaves by a link for one of these hosts."""
    for host in hosts:
        sh(f"ip neighbour replace {host} lladdr 02:00:00:00:00:99 dev {link}")
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    made.bind((link, 0x0800))
    made.setblocking(False)
    return made


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

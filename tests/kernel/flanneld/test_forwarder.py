"""The forwarder of the udp backend: what it survives, and whole streams between two nodes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.udp import loop
from flanneld.forward.keeper import Keeper
from tests.kernel.flanneld.masquerading_node import socket_in
from tests.kernel.flanneld.udp_node import (
    NODE,
    PEER,
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
from tests.kernel.privatens import needs_root, private, sh, spawn_inside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flanneld.forward.forwarding import Forwarding

pytestmark = [pytest.mark.kernel, needs_root]


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
async def test_the_daemon_hears_of_every_dropped_packet() -> None:
    attach()
    dropped: Counter[str] = Counter()
    heard = asyncio.Event()

    def hear(packets: Mapping[str, int]) -> None:
        dropped.update(packets)
        heard.set()

    keeper = Keeper(heard.set, hear)
    assert await keeper.apply(WANTED) == ()
    route(None, PODS)
    pod = socket_in(None)
    for number in range(1, 4):  # the later ones in less than a second
        pod.sendto(b"to nobody", (f"10.44.77.{number}", 5000))
        while dropped["no node"] < number:
            await asyncio.wait_for(heard.wait(), 30)
            heard.clear()
    assert dropped == {"no node": 3}
    await keeper.close()


@scenario
async def test_a_signal_that_is_meant_for_the_daemon_stops_no_packet() -> None:
    wire = peer_socket(attach())
    async with node() as keeper:
        pod = receiver()
        wire.sendto(udp_packet(b"it runs"), (str(NODE), PORT))
        assert pod.recv(100) == b"it runs"
        assert keeper.process_id is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(keeper.process_id, number)
        wire.sendto(udp_packet(b"still"), (str(NODE), PORT))
        assert pod.recv(100) == b"still"


@private
def test_the_forwarder_ends_with_a_killed_daemon() -> None:
    peer = attach()
    argv = ["nsenter", "-t", str(peer), "-n", sys.executable, "-m", "bench.udp", "forward", "2"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        sh(f"nsenter -t {peer} -n ip link show flannel0")
        daemon.kill()
    sh(f"while nsenter -t {peer} -n ip link show flannel0 2>/dev/null; do sleep 0.05; done")


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


def keep(wanted: Forwarding) -> None:
    """A node's forwarder in the namespace of the calling process, for ever."""

    async def run() -> None:
        async with peer_node(wanted):
            await asyncio.Event().wait()

    asyncio.run(run())


@scenario
async def test_the_forwarder_has_no_capabilities() -> None:
    """From before its first packet on; and it can get none by execve(2)."""
    wire = peer_socket(attach())
    async with node() as keeper:
        pod = receiver()
        wire.sendto(udp_packet(b"hello"), (str(NODE), PORT))
        assert pod.recv(100) == b"hello"
        found = status(keeper.process_id)
        sets = [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
        assert {int(one, 16) for one in sets} == {0}
        assert found["NoNewPrivs"] == "1"


def status(process_id: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@asynccontextmanager
async def peer_node(wanted: Forwarding) -> AsyncIterator[None]:
    keeper = Keeper(lambda: None)
    assert await keeper.apply(wanted) == ()
    yield
    await keeper.close()


def start_peer(peer: int, kind: str) -> None:
    """Start the peer's forwarder: ours, or one that reads and sends each packet by itself."""
    theirs = replace(WANTED, local=PEER, subnet=PEER_PODS, nodes={PODS: NODE})
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

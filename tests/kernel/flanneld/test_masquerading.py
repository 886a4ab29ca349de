"""What packets look like after the daemon's rules, and while these are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.kernel.flanneld import masquerading_node
from tests.kernel.flanneld.masquerading_node import (
    GROUP,
    NODE,
    NODE_TO_PEER,
    OUTSIDE,
    PEER_POD,
    POD,
)
from tests.kernel.flanneld.packet_filter import ELSEWHERE, KINDS, TRAFFIC, Filter, ensure
from tests.kernel.privatens import needs_root, private

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, needs_root]


@pytest.mark.parametrize("kind", KINDS)
@private
def test_packets_are_translated_alike_by_either_filter(kind: str, tmp_path: Path) -> None:
    node = masquerading_node.Node()
    packets = Filter(kind, tmp_path)
    ensure(packets.rules())
    pod, outside = node.udp(node.pod, port=7000), node.udp(node.outside, port=7000)
    peer = node.udp(node.peer, PEER_POD, 7000)
    host = node.udp(None, NODE)
    marked = node.udp(None, NODE)
    marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x4000)
    gateway = node.udp(None, masquerading_node.GATEWAY)
    gateway.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_MULTICAST_IF,
        struct.pack("=4s4si", b"", socket.inet_aton(NODE), 0),
    )
    outside.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        socket.inet_aton(GROUP) + socket.inet_aton(OUTSIDE),
    )
    cases = [
        ("pod to outside", pod, outside, OUTSIDE, NODE),
        ("outside to pod", outside, pod, POD, OUTSIDE),
        ("pod to a peer's pod", pod, peer, PEER_POD, POD),
        ("a peer's pod to pod", peer, pod, POD, PEER_POD),
        ("outside to a peer's pod", outside, peer, PEER_POD, NODE_TO_PEER),
        ("host to a peer's pod", host, peer, PEER_POD, NODE_TO_PEER),
        ("host to pod", host, pod, POD, NODE),
        ("host to outside", host, outside, OUTSIDE, NODE),
        ("marked, to a peer's pod", marked, peer, PEER_POD, NODE),
        ("gateway to a group", gateway, outside, GROUP, masquerading_node.GATEWAY),
    ]
    seen = {name: node.source_seen(a, b, to) for name, a, b, to, _ in cases}
    assert seen == {name: source for name, *_, source in cases}


@pytest.mark.parametrize("how", [*KINDS, "switching"])
@private
def test_no_packet_is_unmasqueraded_while_rules_are_replaced(how: str, tmp_path: Path) -> None:
    """Every datagram is a connection of its own: conntrack would hide a gap from a known one."""
    node = masquerading_node.Node()
    packets = Filter("iptables-nft" if how == "switching" else how, tmp_path)
    ensure(packets.rules())
    outside = node.udp(node.outside, port=7000)
    outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sources: set[str] = set()
    replacements = received = 0

    async def rewrite() -> None:
        nonlocal replacements
        for turn in range(20):  # another subnet by turns: every look finds all wrong
            if how == "switching":
                rules = packets.rules(nftables=not turn % 2)
            else:
                rules = packets.rules(TRAFFIC if turn % 2 else ELSEWHERE)
            assert await rules.ensure()
            replacements += 1

    async def send() -> None:
        while replacements < 20:
            for _ in range(4):
                with contextlib.closing(node.udp(node.pod)) as fresh:
                    fresh.sendto(b"x", (OUTSIDE, 7000))
            await asyncio.sleep(0)

    async def run() -> None:
        await asyncio.gather(rewrite(), send())

    asyncio.run(run())
    while select.select([outside], [], [], 0.2)[0]:
        sources.add(outside.recvfrom(10)[1][0])
        received += 1
    assert replacements == 20
    assert received > 100
    assert sources == {NODE}

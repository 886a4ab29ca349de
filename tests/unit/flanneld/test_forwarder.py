"""The forwarder between a socket pair, in the place of a TUN device, and a socket that refuses."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from flanneld.forward import tun
from flanneld.forward.forwarder import Forwarder
from flanneld.forward.table import Gate, Table
from tests.property.test_forward_packet import words_sum

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MTU, PORT = 1472, 8285
NODES = {"10.1.2.0/24": "192.168.9.2", "10.1.3.0/24": "192.168.9.3"}
VNET = bytes(10)


def packet(destination: str, size: int = 100, *, ttl: int = 64, mark: int = 0) -> bytes:
    """A UDP packet of so many bytes; its identification is the mark."""
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, size, mark, 0, ttl, 17, 0)
        + socket.inet_aton("10.1.1.9")
        + socket.inet_aton(destination)
    )
    struct.pack_into("!H", head, 10, words_sum(bytes(head)))
    return bytes(head).ljust(size, b"\xab")


class Underlay:
    """A socket that notes what is sent, and refuses what it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[bytes]]] = []
        self.refused = 0

    def sendto(self, data: memoryview, to: tuple[str, int]) -> None:
        assert to[1] == PORT
        self.sent.append((to[0], [bytes(data)]))

    def sendmsg(
        self, buffers: Sequence[memoryview], control: Any, flags: int, to: tuple[str, int]
    ) -> None:
        assert (flags, to[1]) == (0, PORT)
        ((level, kind, value),) = control
        assert (level, kind) == (17, 103)  # UDP_SEGMENT
        (size,) = struct.unpack("=H", value)
        if self.refused:
            raise OSError(self.refused, os.strerror(self.refused))
        data = b"".join(buffers)
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        self.sent.append((to[0], parts))

    @property
    def marks(self) -> list[int]:
        """The identifications of all packets, in the order in which they were sent."""
        return [struct.unpack_from("!H", one, 4)[0] for _, parts in self.sent for one in parts]


class Scene:
    """A forwarder, its kernel's side of the device, and its underlay."""

    def __init__(self) -> None:
        self.kernel, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._device.setblocking(False)
        self.kernel.setblocking(False)
        self.underlay = Underlay()
        self.forwarder = Forwarder(
            self._device.fileno(),
            self.underlay,  # type: ignore[arg-type] # as much of a socket as is used
            Gate("10.0.0.0/8", "10.0.0.0/8"),
            mtu=MTU,
            port=PORT,
            strict=True,
        )
        self.forwarder.table = Table(NODES)

    def send(self, *packets: bytes) -> bool:
        for one in packets:
            self.kernel.send(VNET + one)
        return self.forwarder.send_batch()

    def close(self) -> None:
        self.kernel.close()
        self._device.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def test_a_batch_to_one_node_is_one_call(scene: Scene) -> None:
    packets = [packet("10.1.2.5", MTU, mark=mark) for mark in range(5)]
    assert not scene.send(*packets, packet("10.1.2.7", 60, mark=5))
    ((node, parts),) = scene.underlay.sent
    assert node == "192.168.9.2"
    assert [len(part) for part in parts] == [MTU] * 5 + [60]
    assert scene.underlay.marks == [0, 1, 2, 3, 4, 5]
    assert all(words_sum(part[:20]) == 0 and part[8] == 63 for part in parts)


def test_small_packets_of_one_length_are_one_call_too(scene: Scene) -> None:
    scene.send(*(packet("10.1.2.5", 52, mark=mark) for mark in range(7)))
    assert [len(parts) for _, parts in scene.underlay.sent] == [7]
    assert scene.underlay.marks == list(range(7))


def test_packets_of_several_nodes_keep_their_order(scene: Scene) -> None:
    to = ["10.1.2.5", "10.1.3.5", "10.1.3.6", "10.1.2.5"]
    scene.send(*(packet(address, mark=mark) for mark, address in enumerate(to)))
    assert [node for node, _ in scene.underlay.sent] == [
        "192.168.9.2", "192.168.9.3", "192.168.9.2",
    ]  # fmt: skip
    assert scene.underlay.marks == [0, 1, 2, 3]


def test_nothing_to_read_is_nothing_to_send(scene: Scene) -> None:
    assert not scene.forwarder.send_batch()
    assert scene.underlay.sent == []


def test_what_ends_here_is_left_out_of_a_batch(scene: Scene) -> None:
    lives = [64, 1, 64, 0]
    scene.send(*(packet("10.1.2.5", ttl=ttl, mark=mark) for mark, ttl in enumerate(lives)))
    assert scene.underlay.marks == [0, 2]
    assert scene.forwarder.dropped == {"time to live": 2}


def test_what_has_no_node_is_answered_and_the_rest_goes(scene: Scene) -> None:
    scene.send(packet("10.1.2.5", mark=1), packet("10.1.9.5"), packet("10.1.2.5", mark=2))
    assert scene.underlay.marks == [1, 2]
    answer = scene.kernel.recv(2000)
    assert answer[:10] == VNET
    assert (answer[10 + 9], answer[10 + 20 : 10 + 22]) == (1, b"\3\0")
    assert answer[10 + 28 : 10 + 56] == packet("10.1.9.5")[:28]


def test_ipv6_and_scraps_are_dropped_in_silence(scene: Scene) -> None:
    scene.send(packet("10.1.2.5", MTU), b"\x60".ljust(48, b"\1"), b"\x45\0\0", b"")
    assert len(scene.underlay.marks) == 1
    with pytest.raises(BlockingIOError):
        scene.kernel.recv(2000)


def test_a_narrow_path_gets_single_datagrams_and_is_asked_again(scene: Scene) -> None:
    scene.underlay.refused = errno.EMSGSIZE
    scene.send(*(packet("10.1.2.5", MTU, mark=mark) for mark in range(3)))
    assert [len(parts) for _, parts in scene.underlay.sent] == [1, 1, 1]
    scene.underlay.refused = 0
    scene.send(*(packet("10.1.2.5", MTU, mark=mark) for mark in range(3, 6)))
    assert [len(parts) for _, parts in scene.underlay.sent] == [1, 1, 1, 3]
    assert scene.underlay.marks == list(range(6))


def test_an_underlay_that_cannot_segment_is_not_asked_again(scene: Scene) -> None:
    scene.underlay.refused = errno.EIO
    scene.send(*(packet("10.1.2.5", MTU) for _ in range(3)))
    scene.underlay.refused = 0
    scene.send(*(packet("10.1.2.5", MTU) for _ in range(3)))
    assert [len(parts) for _, parts in scene.underlay.sent] == [1] * 6


def test_a_full_socket_is_counted(scene: Scene) -> None:
    scene.underlay.refused = errno.EAGAIN
    scene.send(*(packet("10.1.2.5", MTU) for _ in range(3)))
    assert scene.underlay.sent == []
    assert scene.forwarder.dropped == {"socket full": 3}


def test_no_device_node_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "_PATH", "/nowhere/tun")
    with pytest.raises(tun.TunError, match=r"/nowhere/tun for flannel0: No such file.*module tun"):
        tun.Tun("flannel0")

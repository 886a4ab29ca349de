"""What crosses the socket: whole requests are read, everything else is refused, nothing leaks."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from cni_flannel.resident import protocol
from cni_flannel.resident.protocol import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

STRINGS = b"flannel\0CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=2\0"


def header(magic: bytes = b"CNIr", version: int = 1, strings: int = len(STRINGS)) -> bytes:
    return struct.pack("=4sII", magic, version, strings)


WHOLE = header() + STRINGS


def memory_file(content: bytes) -> int:
    fd = os.memfd_create("stdin")
    os.write(fd, content)
    return fd


class Peer:
    """A launcher of the tests, and the server's end of its connection."""

    def __init__(self) -> None:
        self.launcher, self.server = socket.socketpair()
        self.stdin = memory_file(b'{"name":"net"}')
        self.own = os.open("/proc/self/ns/net", os.O_PATH)
        self.pod = os.open("/proc/self/ns/uts", os.O_PATH)

    def send(self, data: bytes, descriptors: list[int] | None = None) -> None:
        fds = [self.own, self.stdin, self.pod] if descriptors is None else descriptors
        socket.send_fds(self.launcher, [data], fds)

    def read(self) -> protocol.Request:
        return protocol.read_request(self.server)

    def close(self) -> None:
        self.launcher.close()
        self.server.close()
        for fd in (self.stdin, self.own, self.pod):
            os.close(fd)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """Also proves that no descriptor is left open, whatever was read or refused."""
    monkeypatch.setattr(protocol, "REQUEST_S", 0.2)
    before = os.listdir("/proc/self/fd")
    made = Peer()
    yield made
    made.close()
    assert os.listdir("/proc/self/fd") == before


def same(one: int, path: str) -> bool:
    return os.path.samestat(os.fstat(one), os.stat(path))


def test_a_whole_request(peer: Peer) -> None:
    os.lseek(peer.stdin, 3, os.SEEK_SET)
    peer.send(WHOLE)
    with peer.read() as request:
        assert request.program == "flannel"
        assert request.environ == {"CNI_COMMAND": "ADD", "CNI_ARGS": "A=1;B=2"}
        assert request.stdin == b'{"name":"net"}'
        assert same(request.caller_netns, "/proc/self/ns/net")
        assert same(request.netns, "/proc/self/ns/uts")
    assert os.lseek(peer.stdin, 0, os.SEEK_CUR) == 3, "the offset is the launcher's"


def test_without_a_namespace_of_a_pod(peer: Peer) -> None:
    peer.send(WHOLE, [peer.own, peer.stdin])
    with peer.read() as request:
        assert request.netns == -1


def test_a_request_in_pieces(peer: Peer) -> None:
    peer.send(WHOLE[:1])
    for byte in WHOLE[1:]:
        peer.launcher.send(bytes([byte]))
    with peer.read() as request:
        assert request.environ["CNI_ARGS"] == "A=1;B=2"


def test_bytes_that_are_no_text_survive(peer: Peer) -> None:
    strings = b"flannel\0PATH=/\xff\0NOTHING\0"
    peer.send(header(strings=len(strings)) + strings)
    with peer.read() as request:
        assert request.environ == {"PATH": "/\udcff"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a request of version 1"),
        (header(version=2) + STRINGS, "version 2"),
        (header(strings=1 << 31), "2147483648 bytes"),
        (WHOLE + b"x", "1 bytes after the request"),
        (WHOLE[:3], "in time"),
        (WHOLE[:-1], "in time"),
    ],
    ids=["garbage", "another version", "too large", "too long", "half a header", "half a request"],
)
def test_what_is_no_request_is_refused(peer: Peer, data: bytes, why: str) -> None:
    peer.send(data)
    with pytest.raises((Refused, TimeoutError)) as caught:
        peer.read()
    assert why in str(caught.value) or (why, str(caught.value)) == ("in time", "timed out")


@pytest.mark.parametrize("data", [b"", WHOLE[:5], WHOLE[:-1]])
def test_a_launcher_that_ends_early_is_refused(peer: Peer, data: bytes) -> None:
    if data:
        peer.send(data)
    peer.launcher.close()
    with pytest.raises(Refused):
        peer.read()


@pytest.mark.parametrize("count", [0, 1, 4, 16, 40])
def test_any_other_number_of_descriptors_is_refused(peer: Peer, count: int) -> None:
    peer.send(WHOLE, [peer.own] * count)
    with pytest.raises(Refused, match="descriptors came with the request"):
        peer.read()


def test_stdin_must_be_a_file_of_limited_size(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    try:
        peer.send(WHOLE, [peer.own, read, peer.pod])
        with pytest.raises(Refused, match="stdin is no file"):
            peer.read()
    finally:
        os.close(read)
        os.close(write)
    monkeypatch.setattr(protocol, "LARGEST", 10)
    peer.send(WHOLE)
    with pytest.raises(Refused, match="stdin is no file of at most 10 bytes"):
        peer.read()


def test_greeting_and_reply_as_the_launcher_reads_them(peer: Peer) -> None:
    protocol.greet(peer.server, "0123456789ab-17")
    protocol.reply(peer.server, 1, b"{}", b"note\n")
    magic, version, call = struct.unpack("=4sI56s", peer.launcher.recv(64))
    assert (magic, version, call.rstrip(b"\0")) == (b"CNIr", 1, b"0123456789ab-17")
    assert struct.unpack("=III", peer.launcher.recv(12)) == (1, 2, 5)
    assert peer.launcher.recv(100) == b"{}note\n"


def test_a_reply_that_nobody_takes_ends(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REPLY_S", 0.1)
    with pytest.raises(TimeoutError):
        protocol.reply(peer.server, 0, bytes(1 << 24), b"")


def test_a_launcher_gives_up_by_closing_or_half_closing(peer: Peer) -> None:
    assert not protocol.has_hung_up(peer.server.fileno())
    peer.send(WHOLE)
    assert not protocol.has_hung_up(peer.server.fileno())
    peer.launcher.shutdown(socket.SHUT_WR)
    assert protocol.has_hung_up(peer.server.fileno())
    peer.launcher.close()
    assert protocol.has_hung_up(peer.server.fileno())

"""One call as it crosses the socket: our greeting, the launcher's request, our reply.

The layout is in docs/resident.md, the other side of it in packaging/launcher/launcher.c.  Numbers
are in the machine's own byte order: both ends are on one machine.  Knows bytes, descriptors and
the time they may take.  Must not know: what a verb is, who asks.
Imports: os, select, stat, struct, time, cni.native.
"""

from __future__ import annotations

import os
import select
import stat
import struct
import time

from cni.native import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

VERSION = 1
MAGIC = b"CNIr"
LARGEST = 4 << 20
"""Bytes of stdin.  A larger one is left to the launcher, which has no limit."""

STRINGS = 1 << 20
"""Bytes of environment."""

REQUEST_S = 2.0
"""Within this a request must be complete."""

REPLY_S = 5.0
"""Within this a reply must be taken."""

_GREETING = struct.Struct("=4sI56s")  # magic, version, name of the call
_HEADER = struct.Struct("=4sII")  # magic, version, bytes of strings
_REPLY = struct.Struct("=III")  # exit status, bytes of stdout, bytes of stderr
_STILL_THERE = _REPLY.pack(256, 0, 0)  # no exit status: a question
_CHUNK = 1 << 16
_DESCRIPTORS = (2, 3)  # that come with a request
_CONTROL = socket.CMSG_SPACE(16 * 4)  # a hostile client may send more: they are taken, and closed


class Refused(Exception):
    """This connection gets no answer; its launcher does the work itself.  The message says why."""


class Request:
    """What a launcher sent: ``program`` is its name, ``environ`` the caller's environment.

    ``caller_netns`` and ``netns`` are descriptors (O_PATH) of the network namespace that the
    launcher ran in, and of what CNI_NETNS led to there, or -1.  A context manager that closes them.
    """

    __slots__ = ("caller_netns", "environ", "netns", "program", "stdin")

    def __init__(self, strings: bytes, stdin: bytes, caller_netns: int, netns: int) -> None:
        program, *environ = os.fsdecode(strings).split("\0")
        self.program = program
        self.environ = dict(one.split("=", 1) for one in environ if "=" in one)
        self.stdin = stdin
        self.caller_netns = caller_netns
        self.netns = netns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close(fd for fd in (self.caller_netns, self.netns) if fd >= 0)


def greet(connection: socket.socket, call: str) -> None:
    """Say that somebody is there, in which version, and the name of this call.  OSError."""
    greeting = _GREETING.pack(MAGIC, VERSION, call.encode())
    connection.send(greeting, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def read_request(connection: socket.socket) -> Request:
    """Read a whole request.  Refused if it is none, too large or too slow; OSError."""
    deadline = time.monotonic() + REQUEST_S
    descriptors: list[int] = []
    try:
        data = _first(connection, descriptors, deadline)
        while len(data) < _HEADER.size:
            data += _receive(connection, _HEADER.size - len(data), deadline)
        magic, version, length = _HEADER.unpack_from(data)
        if magic != MAGIC or version != VERSION:
            raise Refused(f"not a request of version {VERSION}: {magic!r}, version {version}")
        if length > STRINGS:
            raise Refused(f"an environment of {length} bytes; {STRINGS} are the limit")
        if len(descriptors) not in _DESCRIPTORS:
            raise Refused(f"{len(descriptors)} descriptors came with the request")
        missing = _HEADER.size + length - len(data)
        while missing > 0:
            chunk = _receive(connection, min(missing, _CHUNK), deadline)
            data += chunk
            missing -= len(chunk)
        if missing < 0:
            raise Refused(f"{-missing} bytes after the request")
        caller_netns, stdin, netns = (*descriptors, -1)[:3]
        request = Request(data[_HEADER.size :], _content(stdin), caller_netns, netns)
    except BaseException:
        close(descriptors)
        raise
    os.close(stdin)
    return request


def reply(connection: socket.socket, status: int, stdout: bytes, stderr: bytes) -> None:
    """Answer; OSError if nobody takes it in time."""
    connection.settimeout(REPLY_S)
    connection.sendall(
        _REPLY.pack(status, len(stdout), len(stderr)) + stdout + stderr, socket.MSG_NOSIGNAL
    )


def confirms(connection: socket.socket) -> bool:
    """Whether the launcher answers the question if it still waits.

    A process that was killed may have its connection for a moment yet, but does not answer.
    """
    connection.settimeout(REPLY_S)
    try:
        connection.sendall(_STILL_THERE, socket.MSG_NOSIGNAL)
        return connection.recv(1) != b""
    except OSError:
        return False


def has_hung_up(connection: int) -> bool:
    """Whether the other end is closed, or half closed, which is how a launcher gives up."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def close(descriptors: Iterable[int]) -> None:
    """Close them all."""
    for fd in descriptors:
        os.close(fd)


def _first(connection: socket.socket, descriptors: list[int], deadline: float) -> bytes:
    """The first bytes, and the descriptors that came with them."""
    connection.settimeout(max(deadline - time.monotonic(), 0))
    data, ancillary, flags, _ = connection.recvmsg(_CHUNK, _CONTROL, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(content) // 4
            descriptors += struct.unpack(f"={count}i", content[: count * 4])
    if flags & socket.MSG_CTRUNC:
        raise Refused("too many descriptors came with the request")
    if not data:
        raise Refused("nothing came")
    return data


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Refused(f"the request was not complete within {REQUEST_S:g} s")
    connection.settimeout(left)
    data = connection.recv(size)
    if not data:
        raise Refused("the connection ended in the middle of the request")
    return data


def _content(fd: int) -> bytes:
    """What is in a file, from its start; the offset belongs to the launcher and stays."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        raise Refused(f"stdin is no file of at most {LARGEST} bytes: {found.st_size}")
    chunks: list[bytes] = []
    missing = found.st_size
    while missing > 0 and (chunk := os.pread(fd, missing, found.st_size - missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)

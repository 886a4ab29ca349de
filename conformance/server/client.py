"""A client of the resident process by docs/resident.md, which can depart from it in every part."""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from conformance.resident import SOCKET
from conformance.stress.scene import CONTAINER, POD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conformance.server.site import Site

MAGIC, VERSION = b"CNIr", 1
STILL_THERE = struct.pack("=III", 256, 0, 0)
GREETING = 64  # bytes
PATIENCE_S = 30.0


class Reply(NamedTuple):
    """What the resident process answered."""

    status: int
    stdout: bytes

    @property
    def code(self) -> int:
        """The code of an error; 0 for a success."""
        return int(json.loads(self.stdout)["code"]) if self.status else 0


class Request(NamedTuple):
    """The bytes of a request, and the descriptors that go with the first of them."""

    data: bytes
    descriptors: Sequence[int]


def connected(site: Site) -> socket.socket:
    """Connect."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    connection.connect(str(site.world.path(SOCKET)))
    return connection


def strings(program: str, environ: dict[str, str]) -> bytes:
    """Return what a launcher tells of itself and its environment."""
    words = [program, *(f"{key}={text}" for key, text in environ.items())]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def whole(
    told: bytes, descriptors: Sequence[int], *, version: int = VERSION, length: int = -1
) -> Request:
    """Put a request together; `length` is what its header says of the strings."""
    header = struct.pack("=4sII", MAGIC, version, len(told) if length < 0 else length)
    return Request(header + told, descriptors)


def usual(site: Site, command: str = "ADD", **changes: str) -> bytes:
    """Return the strings of a launcher that is called for the scene's attachment."""
    environ = site.world.environment(command, CONTAINER, "eth0", f"/run/netns/{POD}")
    return strings("flannel", environ | changes)


@contextmanager
def files(site: Site) -> Iterator[dict[str, int]]:
    """Open what a launcher sends, and what it should not: by name, for as long as this lasts."""
    holder = f"/proc/{site.world.holder.pid}/ns"
    pipe = os.pipe()
    opened = {
        "host": os.open(f"{holder}/net", os.O_PATH),
        "pod": os.open(site.world.path(f"/run/netns/{POD}"), os.O_PATH),
        "mounts": os.open(f"{holder}/mnt", os.O_PATH),
        "elsewhere": os.open("/proc/self/ns/net", os.O_PATH),
        "stdin": in_memory(json.dumps(site.conf).encode()),
        "file": os.open("/etc/hostname", os.O_RDONLY),
        "folder": os.open("/", os.O_PATH),
        "zeros": os.open("/dev/zero", os.O_RDONLY),
        "pipe": pipe[0],
        "huge": in_memory(b" " * (5 << 20)),
        "path of stdin": os.open("/etc/hostname", os.O_PATH),
    }
    with ExitStack() as stack:
        for fd in {*opened.values(), *pipe}:
            stack.callback(os.close, fd)
        yield opened


def in_memory(content: bytes) -> int:
    """Make a file in memory."""
    fd = os.memfd_create("stdin")
    os.write(fd, content)
    return fd


def send(connection: socket.socket, request: Request) -> None:
    """Send a request as a launcher does."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", request.descriptors))]
    done = connection.sendmsg([request.data], rights if request.descriptors else [])
    if done < len(request.data):  # else it may have been answered already
        connection.sendall(request.data[done:])


def receive(connection: socket.socket, *, answers: bool = True) -> Reply | None:
    """Read greeting and reply; None if the connection ends before it is complete.

    Asked whether it still waits, the client `answers`, or lets the question stand.
    """
    greeting = _read(connection, GREETING)
    head = _read(connection, 12)
    while head == STILL_THERE:
        if answers:
            _confirm(connection)
        head = _read(connection, 12)
    if len(greeting) < GREETING or len(head) < 12:
        return None
    status, out, err = struct.unpack("=III", head)
    output = _read(connection, out + err)
    return Reply(status, output[:out]) if len(output) == out + err else None


def said(what: str, reply: Reply | None, code: int | None = None) -> list[str]:
    """Say what is wrong with what a client got; code None is for a refusal."""
    if code is None:
        return [] if reply is None else [f"{what}: not refused: {reply}"]
    if reply is None:
        return [f"{what}: refused, code {code} expected"]
    return [] if reply.code == code else [f"{what}: code {code} expected: {reply}"]


def _confirm(connection: socket.socket) -> None:
    try:
        connection.send(b"y")
    except BrokenPipeError:
        return  # the end is read, or was closed by us


def ask(site: Site, request: Request) -> Reply | None:
    """Make a whole call; None if it was refused."""
    with connected(site) as connection:
        try:
            send(connection, request)
        except BrokenPipeError:
            return None
        return receive(connection)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            chunk = connection.recv(size - len(data))
        except ConnectionResetError:
            return data
        if not chunk:
            return data
        data += chunk
    return data

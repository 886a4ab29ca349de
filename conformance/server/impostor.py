"""Stands where the resident process should be, and answers wrongly: `impostor.py SOCKET MANNER`.

A program by itself, without the tool's modules; it says `ready` when it listens, and ends with its
stdin. What it sends has the layout of docs/resident.md up to where its manner departs.
"""

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

NOBODY = 65534
SOMEBODY_ELSE = "belongs to somebody else"
GREETING = struct.pack("=4sI56s", b"CNIr", 1, b"0123456789ab-1")
STILL_THERE = struct.pack("=III", 256, 0, 0)
CLAIM = b'{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.66/24"}]}'


def reply(status: int, stdout: bytes, claimed: int) -> bytes:
    """Return a reply that claims to have so many bytes of stdout."""
    return struct.pack("=III", status, claimed, 0) + stdout


def say(*parts: bytes) -> Callable[[socket.socket], None]:
    """Send parts, then close."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))
        connection.recv(1 << 16)

    return answer


def keep(connection: socket.socket) -> None:
    """Say nothing, and hold the connection open."""
    kept.append(connection)


def greet_and_keep(connection: socket.socket) -> None:
    """Greet, and never answer."""
    connection.sendall(GREETING)
    kept.append(connection)


def ask_for_ever(connection: socket.socket) -> None:
    """Greet, and ask again and again whether the launcher still waits."""
    connection.sendall(GREETING)
    while connection.recv(1 << 16):
        connection.sendall(STILL_THERE)


kept: list[socket.socket] = []
MANNERS: dict[str, Callable[[socket.socket], None] | None] = {
    "does not accept": None,
    "closes": say(),
    "is silent": keep,
    "talks nonsense": say(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4),
    "has another version": say(GREETING[:4], struct.pack("=I", 2), GREETING[8:]),
    "greets by half": say(GREETING[:20]),
    "greets and closes": say(GREETING),
    "greets and is silent": greet_and_keep,
    "asks for ever": ask_for_ever,
    "replies by half": say(GREETING, reply(0, b"", 8)[:6]),
    "claims more than it sends": say(GREETING, reply(0, CLAIM, 1 << 20)),
    "claims more than there can be": say(GREETING, reply(0, CLAIM, 0xFFFFFFFF)),
    SOMEBODY_ELSE: say(GREETING, reply(0, CLAIM, len(CLAIM))),
}


def main(path: str, manner: str) -> None:
    answer = MANNERS[manner]
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    if manner == SOMEBODY_ELSE:
        os.setresuid(NOBODY, NOBODY, NOBODY)
    listener.listen(0 if answer is None else 128)
    if answer is None:  # one connection fills the queue
        kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        kept[0].connect(path)
    else:
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def serve(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = listener.accept()
        try:
            answer(connection)
        except OSError:
            kept.append(connection)  # the launcher has left already, as it should
        if connection not in kept:
            connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Real traffic between the namespaces of a world, without a program in any of them.

A socket belongs to the network namespace in which it was made: this process enters one, makes the
socket, and comes back. So servers and clients of several pods live here, and end with this process.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Self

from conformance.state import entered

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S = 10.0
_REFUSED_S = 1.0
_CHUNK = 64 * 1024


class Server:
    """Answers each connection with a greeting; then sends or swallows what the client asks for.

    A client sends one line: `hello` gets the name back, `give N` gets N bytes, `take N` sends N
    bytes and gets `taken` when they have all arrived. A context manager.
    """

    def __init__(self, namespace: Path | str, name: str, port: int = 80) -> None:
        self.name = name
        with entered(namespace):
            self._listening = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16
            )
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as file:
                verb, _, amount = file.readline().decode().strip().partition(" ")
                if verb == "hello":
                    file.write(self.name.encode())
                elif verb == "give":
                    _send(connection, int(amount))
                elif verb == "take":
                    file.write(b"taken" if len(file.read(int(amount))) == int(amount) else b"")
        except OSError:
            return  # the client has gone: its own failure tells


def hello(namespace: Path | str, address: str, port: int = 80) -> str:
    """Return the name of the server that answers at an address; OSError if none does."""
    with _connect(namespace, address, port, _TIMEOUT_S) as connection:
        connection.sendall(b"hello\n")
        return _all(connection)


def is_reached(namespace: Path | str, address: str, port: int = 80) -> bool:
    """Whether anything answers; not for long, as a packet that is dropped is waited for."""
    try:
        with _connect(namespace, address, port, _REFUSED_S):
            return True
    except OSError:
        return False


def rate(namespace: Path | str, address: str, port: int, verb: str, amount: int) -> float:
    """Measure bit/s of `give` or `take` of so many bytes, from the request to the last of them."""
    with _connect(namespace, address, port, _TIMEOUT_S) as connection:
        start = time.monotonic()
        connection.sendall(f"{verb} {amount}\n".encode())
        if verb == "give":
            _receive(connection, amount)
        else:
            _send(connection, amount)
            if _all(connection) != "taken":
                raise OSError(f"{address}: the server has not got everything")
        return amount * 8 / (time.monotonic() - start)


def _connect(namespace: Path | str, address: str, port: int, timeout: float) -> socket.socket:
    with entered(namespace):
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    connection.settimeout(timeout)
    try:
        connection.connect((address, port))
    except OSError:
        connection.close()
        raise
    return connection


def _send(connection: socket.socket, amount: int) -> None:
    chunk = bytes(_CHUNK)
    while amount:
        amount -= connection.send(chunk[:amount])


def _receive(connection: socket.socket, amount: int) -> None:
    while amount:
        got = len(connection.recv(min(amount, _CHUNK)))
        if not got:
            raise OSError("the peer ended early")
        amount -= got


def _all(connection: socket.socket) -> str:
    parts = []
    while part := connection.recv(_CHUNK):
        parts.append(part)
    return b"".join(parts).decode()

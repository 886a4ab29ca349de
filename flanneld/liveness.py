"""Asking the daemon itself how it stands: a socket beside ``subnet.env``, for root.

A daemon that was stopped (SIGSTOP), frozen or hangs holds its lock and has left a state that says
that all is well.  It does not answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 5.0
_LONGEST = 1 << 22


def path(subnet_file: str) -> str:
    """Where the socket is: ``/run/flannel/subnet.sock`` for ``/run/flannel/subnet.env``."""
    return f"{subnet_file.removesuffix('.env')}.sock"


async def serve(place: str, document: Callable[[], dict[str, Any]]) -> asyncio.Server:
    """Answer whoever connects with the document.  OSError.

    To be called by the holder of the daemon's lock: what is left of an earlier run is replaced.
    """

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(json.dumps(document()).encode())
                await writer.drain()
        except (TimeoutError, OSError):
            return
        finally:
            writer.close()

    folder, name = os.path.split(place)
    directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            before = os.umask(0o177)
            try:
                listener.bind(_short(directory, name))
            finally:
                os.umask(before)
            return await asyncio.start_unix_server(answer, sock=listener, backlog=16)
        except BaseException:
            listener.close()
            raise
    finally:
        os.close(directory)


def ask(place: str, patience_s: float = PATIENCE_S) -> dict[str, Any] | None:
    """Give the daemon's document; None if nobody answers in time."""
    folder, name = os.path.split(place)
    try:
        directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(patience_s)
            asking.connect(_short(directory, name))
            found = json.loads(_everything(asking))
    except (OSError, ValueError):
        return None
    finally:
        os.close(directory)
    return found if isinstance(found, dict) else None


def _everything(asking: socket.socket) -> bytes:
    heard = b""
    while len(heard) < _LONGEST and (more := asking.recv(1 << 16)):
        heard += more
    return heard


def _short(directory: int, name: str) -> str:
    """Name a file of a folder so that sun_path (unix(7)) can hold it, however deep it lies."""
    return f"/proc/self/fd/{directory}/{name}"

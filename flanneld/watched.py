"""Tells when files change: inotify(7) on their folders, so that replaced files are seen too.

A file that is a link counts as changed by whatever changes in its folder: that is how a volume of
Kubernetes is updated, by a link beside it that its links lead through.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_IN_CLOSE_WRITE = 0x008
_IN_MOVED_FROM = 0x040
_IN_MOVED_TO = 0x080
_IN_DELETE = 0x200
_MASK = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE
_EVENT = struct.Struct("=iIII")  # wd, mask, cookie, length of the name behind it
_BUFFER = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    """Some files, of which each change is one wake-up; their folders must exist.  OSError."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._changed = asyncio.Event()
        self._names: set[tuple[int, bytes]] = set()
        self._linked: set[int] = set()
        self._fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        try:
            for path in paths:
                folder, name = os.path.split(os.path.abspath(path))
                watch = _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
                self._names.add((_check(watch, folder), os.fsencode(name)))
                if os.path.islink(path):
                    self._linked.add(watch)
        except OSError:
            os.close(self._fd)
            raise
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        """End the watch."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    async def change(self) -> None:
        """Wait until one of the files has changed since the last call returned."""
        await self._changed.wait()
        self._changed.clear()

    def _read(self) -> None:
        data = os.read(self._fd, _BUFFER)
        at = 0
        while at < len(data):
            watch, _mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            # A watch of -1 is a queue that has overflowed: anything may have changed.
            if watch == -1 or watch in self._linked or (watch, name) in self._names:
                self._changed.set()


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result

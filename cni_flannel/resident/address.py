"""The socket's place in the file system: who may serve there, and how it gets and loses its name.

Who serves has ``<path>.lock`` locked (flock(2)) for as long as it lives, so what a killed process
left can be replaced without asking whether somebody answers.  The socket gets its name when it
listens already: no launcher finds one that refuses.
Imports: fcntl, os, stat, the protocol package.
"""

from __future__ import annotations

import fcntl
import os
import stat

from cni import files
from cni.native import socket

BACKLOG = 1024
_FORBIDDEN = stat.S_IWGRP | stat.S_IWOTH


class Address:
    """A socket that listens at ``path``.  OSError or ValueError if that may not or cannot be.

    ``listener`` is the open socket.
    """

    __slots__ = ("_identity", "_lock", "_path", "listener")

    def __init__(self, path: str) -> None:
        self._path = path
        folder = os.path.dirname(path) or "."
        files.make_folder(folder, 0o700)
        _require_private(folder)
        self._lock = _locked(f"{path}.lock")
        temporary = f"{path}.new"
        _unlink(temporary)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.listener.bind(temporary)
        os.chmod(temporary, 0o600)
        self.listener.listen(BACKLOG)
        found = os.stat(temporary)
        self._identity = found.st_dev, found.st_ino
        os.rename(temporary, path)

    def close(self) -> None:
        """Stop listening: who is in the queue is sent away.  The name goes if it is still ours."""
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        self.listener.close()
        os.close(self._lock)


def _require_private(folder: str) -> None:
    """Whoever can write to the folder could put a socket of his own there."""
    found = os.stat(folder)
    if found.st_uid != 0 or found.st_mode & _FORBIDDEN:
        raise ValueError(
            f"{folder} belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}: it "
            "must be root's, and nobody else may write to it"
        )


def _locked(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ValueError(f"another process serves here already: it has {path} locked") from None
    return fd


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

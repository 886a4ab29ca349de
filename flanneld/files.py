"""Files that are never seen half-written, and a lock that dies with its holder."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import struct
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedWriter


LARGEST = 1 << 26
"""Bytes of a file that is read at all."""

_CHUNK = 1 << 16
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, pid


class Locked(Exception):
    """Another process holds the lock; ``str`` names the file."""


def write(path: str, content: bytes, *, durable: bool = True, mode: int = 0o644) -> None:
    """Put a file in place whole, making its folder; OSError if that fails.

    ``durable`` files are on the disk before the rename is.  An existing file's mode is kept.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o755, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(fd, _mode(path, mode))
            if durable:
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def update(path: str, content: bytes) -> bool:
    """Put a file in place if it is not like this; whether it was not.  OSError."""
    try:
        if read(path) == content:
            return False
    except OSError:
        pass  # whatever is in its place is to be replaced
    write(path, content)
    return True


def unfinished(path: str) -> list[str]:
    """Name what processes that were killed while they wrote a file have left beside it."""
    folder, name = os.path.split(path)
    return glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.????????"))


def read(path: str) -> bytes | None:
    """Give the content of a file, or None if there is none.  OSError also for what is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a FIFO nobody may write
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, "it is not a file", path)
        content = bytearray()
        while chunk := os.read(fd, _CHUNK):
            content += chunk
            if len(content) > LARGEST:
                raise OSError(errno.EFBIG, f"it has more than {LARGEST} bytes", path)
    finally:
        os.close(fd)
    return bytes(content)


def lock(path: str) -> BufferedWriter:
    """Take the lock that a file stands for, until what is given is closed, or the process ends.

    The file itself stays.  Locked if another process holds it; OSError.
    """
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    file = open(path, "ab")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
    except BlockingIOError:
        file.close()
        raise Locked(f"{path} is locked by another process") from None
    return file


def is_locked(path: str) -> bool:
    """Whether some process has the lock, which is not taken meanwhile: nobody is refused by it."""
    try:
        with open(path, "rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
    except (FileNotFoundError, NotADirectoryError):
        return False
    (kind, *_) = _FLOCK.unpack(answer)
    return bool(kind != fcntl.F_UNLCK)


def _flock(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)  # from the first byte to the last


def _mode(path: str, default: int) -> int:
    try:
        return os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        return default

"""Files that others have put there, and folders of our own.

A path may lead to anything: a named pipe, a device, a file without end. What is read is a plain
file, with a bound, and nothing waits; a device is not even opened. Folders never become writable
for everybody, whatever the umask.
"""

from __future__ import annotations

import errno
import os

LIMIT = 1 << 20
_PLAIN = 0o100000
_FOLDER = 0o040000
_KINDS = {  # by S_IFMT, see inode(7)
    0o010000: "a named pipe",
    0o020000: "a device",
    _FOLDER: "a directory",
    0o060000: "a device",
    0o140000: "a socket",
}
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of a path where nothing can be."""
_FEW = 4096  # files under /proc do not tell their size


class NotPlain(OSError):
    """There is something, but no plain file; `strerror` says what, or that it is too large."""


def kind(mode: int) -> str:
    """Say what a file of this `st_mode` is, "" for a plain one."""
    return "" if mode & 0o170000 == _PLAIN else _KINDS.get(mode & 0o170000, "no file")


def read(path: str, limit: int = LIMIT, dir_fd: int | None = None) -> bytes:
    """Return all that a plain file holds; NotPlain if that is no file, or more than `limit` bytes.

    Any other OSError is the system's (IsADirectoryError). Symbolic links are followed.
    """
    found = os.stat(path, dir_fd=dir_fd)
    what = kind(found.st_mode)
    if what == _KINDS[_FOLDER]:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if what:
        raise NotPlain(errno.EINVAL, f"it is {what}, not a plain file", path)
    if found.st_size > limit:
        raise _too_large(path, limit)
    # O_NONBLOCK: it may be exchanged now, and some files under /proc and /sys wait for news
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        data = os.read(fd, min(found.st_size or _FEW, limit) + 1)
        while len(data) != found.st_size and (more := os.read(fd, max(limit + 1 - len(data), 0))):
            data += more
        if len(data) > limit:
            raise _too_large(path, limit)
    except OSError as error:
        error.filename = path  # read(2) knows a descriptor only
        raise
    finally:
        os.close(fd)
    return data


def make_folder(path: str, mode: int) -> None:
    """Make a folder, and those above it that are missing with 0755, less the umask; OSError.

    One that is there stays as it is.
    """
    for again in (True, True, False):  # somebody may empty the place meanwhile
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        except FileNotFoundError:
            above = os.path.dirname(path)
            if above in ("", path) or not again:  # /proc says so of a folder that is there
                raise
            make_folder(above, 0o755)
            continue
        return


def require_room(path: str) -> None:
    """OSError if the folder is not there and cannot be made, or cannot be written into."""
    above = path
    while not os.path.lexists(above):
        above = os.path.dirname(above) or "."
    os.close(os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if not os.access(above, os.W_OK | os.X_OK):
        is_fixed = os.statvfs(above).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_fixed else errno.EACCES
        raise OSError(number, os.strerror(number), above)


def _too_large(path: str, limit: int) -> NotPlain:
    return NotPlain(errno.EFBIG, f"it has more than {limit} bytes", path)

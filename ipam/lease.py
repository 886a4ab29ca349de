r"""The lease file: what it says, and how one comes into being whole.

`containerID CR LF ifname`, no line break at the end; older plugins wrote the container ID alone.
Readers strip white space, as Go's does. An empty file is what a killed Go plugin leaves: nobody's
lease. Knows nothing of locks, ranges and the index; raises OSError.
"""

from __future__ import annotations

import errno
import os

from cni import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from ipam.index import Owner

DRAFT = ".new-lease"  # only where the file system has no files without a name
_NOT_IN_NAMES = frozenset("/:\0")
_LINE_BREAK = "\r\n"
_NO_FILE = (errno.ENOENT, errno.ELOOP)  # nothing, a link to itself
_LARGEST = 1 << 16
_NEW = os.O_WRONLY | os.O_CLOEXEC
_TROUBLE = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # any other: no links here


class Lease:
    """One lease file; `owner` is None when it is empty or says nothing sensible."""

    __slots__ = ("content", "mtime_ns", "name", "owner")

    def __init__(self, name: str, content: bytes, mtime_ns: int) -> None:
        self.name = name
        self.content = content
        self.owner = owner_of(content)
        self.mtime_ns = mtime_ns


def owner_of(content: bytes) -> Owner | None:
    """Return (container ID, ifname) of a lease file's bytes, ("...", "") in the old format."""
    parts = content.decode("utf-8", "surrogateescape").strip().split(_LINE_BREAK)
    if len(parts) > 2 or any(part.split() != [part] or set(part) & _NOT_IN_NAMES for part in parts):
        return None
    return parts[0], parts[1] if len(parts) > 1 else ""


def read_lease(name: str, dir_fd: int) -> Lease | None:
    """Read a lease with its time; None when it is missing or no plain file."""
    try:
        stat = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    content = None if files.kind(stat.st_mode) else read(name, dir_fd)
    return None if content is None else Lease(name, content, stat.st_mtime_ns)


def read(name: str, dir_fd: int) -> bytes | None:
    """Return the bytes of a small file; None when it is missing or no plain file."""
    try:
        return files.read(name, _LARGEST, dir_fd)
    except (files.NotPlain, IsADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise


def owner_at(name: str, dir_fd: int) -> Owner | None:
    """Return who holds an address, from the lease file itself."""
    return owner_of(read(name, dir_fd) or b"")


def exists(name: str, dir_fd: int) -> bool:
    """Whether there is anything of that name."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_empty(name: str, dir_fd: int) -> bool:
    """Whether a plain file of that name holds nothing."""
    try:
        stat = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.st_size == 0 and not files.kind(stat.st_mode)


def overwrite(name: str, content: bytes, dir_fd: int) -> None:
    r"""Write a small file that holds one value; never seen half-written.

    In place: replacing a file, by rename or O_TRUNC, makes ext4 write it out at once, which costs
    more than the rest of an ADD. A shorter text is padded with NUL before the file is cut:
    `last_reserved_ip.N` is then no address, and Go's plugin starts from the range's beginning.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        size = os.fstat(fd).st_size
        os.pwrite(fd, content.ljust(size, b"\0"), 0)
        if size > len(content):
            os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def unlink(name: str, dir_fd: int) -> None:
    """Remove a file; fine when it is not there."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def content_of(owner: Owner) -> bytes:
    """Return what a lease file of this owner says."""
    return _LINE_BREAK.join(owner).encode("utf-8", "surrogateescape")


class Draft:
    """A complete lease that has no name yet.

    A file without a name (O_TMPFILE, open(2)): SIGKILL leaves nothing of it. File systems that
    have none, or no link(2) (FAT), get a hidden file in the same directory, whose name is no
    address, so that Go's plugin never takes it for a lease. `time_ns` is what the file's times
    become; 0 is now.
    """

    __slots__ = ("_content", "_dir_fd", "_fd", "_named", "_time_ns", "inode")

    def __init__(self, dir_fd: int, owner: Owner, time_ns: int = 0) -> None:
        self._dir_fd = dir_fd
        self._content = content_of(owner)
        self._time_ns = time_ns
        self._named = False
        try:
            self._fd = os.open(".", os.O_TMPFILE | _NEW, 0o600, dir_fd=dir_fd)
        except OSError:  # whatever it is, the other way has it too, or works
            self._fd = self._open_named()
        try:
            self._fill()
        except BaseException:
            self.__exit__()
            raise

    def link(self, name: str) -> bool:
        """Make the lease appear under `name`; False when the name is taken.

        Not again after it has appeared.
        """
        source = DRAFT if self._named else f"/proc/self/fd/{self._fd}"
        try:
            # a directory descriptor on both sides makes Python use linkat(2), which follows
            os.link(
                source,
                name,
                src_dir_fd=self._dir_fd,
                dst_dir_fd=self._dir_fd,
                follow_symlinks=True,
            )
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _TROUBLE:
                raise
            return self._rename(name)
        return True

    def _rename(self, name: str) -> bool:
        """The way without links. It would replace: but under the lock nobody makes a lease."""
        if exists(name, self._dir_fd):
            return False
        if not self._named:
            nameless, self._fd = self._fd, self._open_named()
            os.close(nameless)
            self._fill()
        os.rename(DRAFT, name, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
        return True

    def _open_named(self) -> int:
        self._named = True
        unlink(DRAFT, self._dir_fd)
        return os.open(DRAFT, os.O_CREAT | os.O_EXCL | _NEW, 0o600, dir_fd=self._dir_fd)

    def _fill(self) -> None:
        """Write the lease, and know it again by its inode."""
        if os.write(self._fd, self._content) < len(self._content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._time_ns:
            os.utime(self._fd, ns=(self._time_ns, self._time_ns))
        self.inode = os.fstat(self._fd).st_ino

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._named:
            unlink(DRAFT, self._dir_fd)

"""Files at places that may be others': a copy is kept of what is replaced, and put back."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from flanneld.installation.builds import REPLACED
from flanneld.installation.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld.installation.builds import Builds

_LARGEST = 1 << 26


class Place:
    """A path where a file of ours goes, known by its ``marks``; the copy is with ``builds``."""

    def __init__(self, path: str, marks: tuple[bytes, ...], builds: Builds) -> None:
        self.path = path
        self._marks = marks
        self._builds = builds
        self.copy = os.path.join(builds.path(REPLACED), os.path.basename(path))

    def check(self) -> None:
        """InstallError if no file can be put here."""
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            raise InstallError(f"{self.path} is a folder: remove it, or install elsewhere")

    def is_ours(self) -> bool:
        """Whether the file here is ours; a link never is."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                return False
            content = file.read()
        return any(mark in content for mark in self._marks)

    def put(self, make: Callable[[str], None], say: Callable[[str], None]) -> None:
        """Put what ``make`` writes to a path here, by rename; say so if that was another's."""
        if os.path.lexists(self.path) and not self.is_ours():
            os.makedirs(os.path.dirname(self.copy), exist_ok=True)
            _replace(self.copy, lambda new: _copy(self.path, new))
            say(f"{self.path} was another's: kept as {self.copy}; --uninstall puts it back")
        _replace(self.path, make)

    def take_away(self, say: Callable[[str], None]) -> None:
        """Put the copy back, or remove ours; what is another's by now stays."""
        kept = os.path.lexists(self.copy)
        if os.path.lexists(self.path) and not self.is_ours():
            say(f"left {self.path}, which is another's")
        elif kept:
            _replace(self.path, lambda new: _copy(self.copy, new))
            say(f"put {self.path} back as it was")
        elif os.path.lexists(self.path):
            os.unlink(self.path)
            say(f"removed {self.path}")
        if kept:
            os.unlink(self.copy)


def _replace(path: str, make: Callable[[str], None]) -> None:
    """Make a file or a link, and rename it to a path.

    The name that it has before is always the same: what a killed installation left goes.
    """
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    try:
        make(new)
        if not os.path.islink(new):
            _synchronize(new)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise


def _copy(source: str, target: str) -> None:
    """Copy a file or a link, its owner, mode and times as well."""
    shutil.copy2(source, target, follow_symlinks=False)
    found = os.lstat(source)
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not os.path.islink(source):
        os.chmod(target, stat.S_IMODE(found.st_mode))  # chown took some bits


def _synchronize(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

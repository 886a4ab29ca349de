"""Builds of one program beside each other in a folder, and the link to the one that is current.

A build's folder is complete before it gets its name, and ``current`` changes by rename.  Whoever
runs a build holds a shared flock on its folder up to the end; so the exclusive one shows, across
PID namespaces too, that nobody does.  A build goes only then.  What a killed installation leaves
has a name that begins with ``tmp.``, or is a build that is not current: the next one removes both.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import os
import shutil
import stat
import tempfile
import time
from typing import TYPE_CHECKING

from flanneld.installation.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CURRENT, REPLACED = "current", "replaced"
_MADE = "made"  # how many folders above were made for it
_TEMPORARY = "tmp."
_PATIENCE_S = 60.0
_STEP_S = 0.05


class Builds:
    """The builds in the folder ``base``; what is said is for people."""

    def __init__(self, base: str, say: Callable[[str], None]) -> None:
        self.base = base
        self._say = say

    def path(self, name: str) -> str:
        """Give the path of what lies in the folder."""
        return os.path.join(self.base, name)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder, and be the only installation in the one above; InstallError."""
        above = os.path.dirname(self.base)
        levels = _missing(above)
        os.makedirs(self.base, mode=0o755, exist_ok=True)
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not within(_PATIENCE_S, lambda: is_locked(fd)):
                raise InstallError(
                    f"{above} is locked: another installation runs (fuser {above}); try again"
                )
            self._remove_unfinished()
            yield
            if levels:
                with open(self.path(_MADE), "w", encoding="utf-8") as file:
                    file.write(str(levels))
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(self.base)  # if nothing is in it
                _remove_above(self.base, levels)
            os.close(fd)

    def remove(self) -> None:
        """Remove the folder with all that is in it, and those above that were made for it."""
        levels = 0
        with contextlib.suppress(OSError, ValueError), open(self.path(_MADE), "rb") as file:
            levels = int(file.read(8))
        shutil.rmtree(self.base)
        _remove_above(self.base, levels)

    def put(self, source: str, name: str, test: Callable[[str], None]) -> str:
        """Copy a build here, unless it is here already, and test it; the name that it has here."""
        number, wanted = 1, name
        while os.path.lexists(self.path(name)):
            if is_same(source, self.path(name)):
                return name
            number += 1
            name = f"{wanted}.{number}"  # one that is damaged may be in use
        with self.temporary() as folder:
            _copy(source, folder)
            synchronize(folder)
            test(folder)
            os.rename(folder, self.path(name))
        return name

    def make_current(self, name: str) -> None:
        """Let the link lead to a build."""
        with self.temporary() as link:
            os.symlink(name, link)
            os.rename(link, self.path(CURRENT))

    @contextlib.contextmanager
    def temporary(self) -> Iterator[str]:
        """Give a path where nothing is, of what is renamed when it is complete."""
        folder = tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.base)
        try:
            yield os.path.join(folder, "new")
        finally:
            shutil.rmtree(folder)

    def remove_unused(self, keep: str = "", patience_s: float = 0.0) -> list[str]:
        """Remove all builds but one that nobody runs; the paths of those that somebody does."""
        used = []
        for name in sorted(os.listdir(self.base)):
            if name not in (keep, CURRENT, REPLACED, _MADE) and not name.startswith(_TEMPORARY):
                if within(patience_s, lambda name=name: self._remove(name)):  # type: ignore[misc]
                    self._say(f"removed {self.path(name)}")
                else:
                    used.append(self.path(name))
        return used

    def _remove(self, name: str) -> bool:
        fd = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not is_locked(fd) or runs_from(self.path(name)):
                return False
            with self.temporary() as folder:
                os.rename(self.path(name), folder)
            return True
        finally:
            os.close(fd)

    def _remove_unfinished(self) -> None:
        for name in os.listdir(self.base):
            if name.startswith(_TEMPORARY):
                shutil.rmtree(self.path(name))


def _missing(folder: str) -> int:
    """Count the folders that are still to be made, up to the first that is there."""
    return 0 if os.path.exists(folder) else 1 + _missing(os.path.dirname(folder))


def _remove_above(folder: str, levels: int) -> None:
    """Remove so many folders above one, as far as nothing else is in them."""
    with contextlib.suppress(OSError):
        for _ in range(levels):
            folder = os.path.dirname(folder)
            os.rmdir(folder)


def _copy(source: str, target: str) -> None:
    try:
        shutil.copytree(source, target, symlinks=True)
    except shutil.Error as error:
        path, _, reason = error.args[0][0]  # of perhaps very many
        raise InstallError(f"copy {path}: {reason}") from error
    for where, _, names in os.walk(target):
        for path in (where, *(os.path.join(where, name) for name in names)):
            os.chmod(path, mode_of(path))


def within(patience_s: float, done: Callable[[], bool]) -> bool:
    """Whether something is done within a time."""
    deadline = time.monotonic() + patience_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP_S)  # no event tells that the last lock is gone, but a wait without end
    return True


def is_locked(fd: int) -> bool:
    """Take the exclusive lock, if nobody else has one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def runs_from(folder: str) -> bool:
    """Whether a process is seen that was started from a folder: it may not have the lock yet."""
    inside = os.path.realpath(folder) + os.sep
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").startswith(inside):
                return True
    return False


def is_same(source: str, installed: str) -> bool:
    """Whether a folder has the files of another with the same content, and the right modes."""
    files = {name: mode_of(os.path.join(source, name)) for name in files_of(source)}
    there = [(name, os.path.join(installed, name)) for name in files_of(installed)]
    if files != {name: stat.S_IMODE(os.stat(path).st_mode) for name, path in there}:
        return False
    _, different, failed = filecmp.cmpfiles(source, installed, list(files), shallow=False)
    return not different and not failed


def mode_of(path: str) -> int:
    """Give the mode that a file or folder is installed with, whatever the builder's umask was."""
    return 0o755 if os.path.isdir(path) or os.stat(path).st_mode & 0o111 else 0o644


def files_of(folder: str) -> list[str]:
    """Name all files below a folder."""
    return [
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
        if os.path.exists(os.path.join(where, name))
    ]


def synchronize(folder: str) -> None:
    """Bring a folder to the disk: a power failure after the rename shall find it whole."""
    for where, _, names in os.walk(folder):
        for path in (*(os.path.join(where, name) for name in names), where):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

"""Files that are never seen half-written: a temporary one beside it, then a rename."""

from __future__ import annotations

import os
import tempfile


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


def read(path: str) -> bytes | None:
    """Give the content of a file, or None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mode(path: str, default: int) -> int:
    try:
        return os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        return default

"""Kernel settings under /proc/sys, as the calling thread's network namespace sees them.

Knows: that ``net`` is per namespace, and that a setting may be missing (IPv6 switched off).
Must not know: what a setting is for. A path is relative: "net/ipv4/ip_forward". Interface names
may hold dots, so paths are written with slashes. Imports os.
"""

from __future__ import annotations

import os

_ROOT = "/proc/sys/"


def read(path: str) -> str | None:
    """Return the value without its newline, or None when there is no such setting."""
    try:
        fd = os.open(_ROOT + path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode().rstrip("\n")
    finally:
        os.close(fd)


def write(path: str, value: str | int) -> bool:
    """Set the value if it is another one. False when there is no such setting.

    OSError as the kernel gives it, with the value that stays: EACCES or EROFS in a container
    without rights, EINVAL for a value it does not take. Writing even the same value may have
    effects (forwarding resets the interfaces'), so it is read first.
    """
    wanted = str(value)
    try:
        fd = os.open(_ROOT + path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if (kept := read(path)) == wanted:
            return True
        raise _kept(path, kept, wanted, error) from None
    present = None
    try:
        present = os.pread(fd, 4096, 0).decode().rstrip("\n")
        if present != wanted:
            os.pwrite(fd, wanted.encode(), 0)
    except OSError as error:
        raise _kept(path, present, wanted, error) from None
    finally:
        os.close(fd)
    return True


def is_writable(path: str) -> bool:
    """Whether this process may set it, as far as mode and mount tell."""
    return os.access(_ROOT + path, os.W_OK)


def _kept(path: str, present: str | None, wanted: str, error: OSError) -> OSError:
    cause = f"{path} is {present} and cannot be set to {wanted}: {error.strerror}"
    return OSError(error.errno, cause)

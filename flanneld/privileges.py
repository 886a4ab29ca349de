"""What a process can do without: capabilities(7), and secrets in the environment.

Knows prctl(2) and capset(2), by ctypes: a container has no setpriv.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_SET_NO_NEW_PRIVS = 38
_VERSION_3 = 0x20080522
_HEADER = struct.pack("=Ii", _VERSION_3, 0)  # of this process
_NONE = bytes(24)  # effective, permitted and inheritable, twice 32 bits

_libc = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """Give up all capabilities of this process, for good.  OSError."""
    results = (_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), _libc.capset(_HEADER, _NONE))
    if any(results):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "capset")


def hide(variable: str) -> None:
    """Keep a secret from the programs that this one starts."""
    os.environ.pop(variable, None)


def mask() -> None:
    """Let others write no file that is made, whatever umask(2) this process was started with."""
    os.umask(os.umask(0o777) | 0o022)

"""Whether the paths that a call names lead here to where they lead its caller.

A caller may have another working folder, another root, or may write where this process may not
(systemd's ProtectSystem and PrivateTmp).  Such a call is left to its launcher, where every path
means what it always means.
Imports: errno, os, cni.wire, the protocol of this package.
"""

from __future__ import annotations

import errno
import os

from cni import wire
from cni_flannel.resident.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_KEYS = ("subnetfile", "datadir", "resolvconf")  # those of a conf that name paths, in any case
_NAMED = tuple(key.encode() for key in _KEYS)


def require_same(pid: int, cni_path: str, stdin: bytes) -> None:
    """Refused if a path in CNI_PATH or in the conf means something else to the caller ``pid``.

    Where its process is not to be seen (pid 0: from another PID namespace), only relative ones do.
    """
    paths = [path for path in cni_path.split(":") if path and not path.startswith("/")]
    lower = stdin.lower()
    if any(key in lower for key in _NAMED):
        paths += _named(stdin)
    for path in paths:
        relative = not path.startswith("/")
        theirs = f"/proc/{pid}/cwd/{path}" if relative else f"/proc/{pid}/root{path}"
        try:
            if _place(path) == _place(theirs, f"/proc/{pid}"):
                continue
        except OSError:
            if not relative:
                continue
        raise Refused(f"{path} is another place for process {pid}")


def _named(stdin: bytes) -> list[str]:
    try:
        return list(_paths(wire.loads(stdin)))
    except ValueError:
        return []  # the call says what is wrong with it


def _paths(value: Any) -> Iterator[str]:
    """The paths under the keys that name some, wherever in a conf."""
    if type(value) is dict:
        for key, inner in value.items():
            if type(inner) is not str:
                yield from _paths(inner)
            elif inner and key.lower() in _KEYS and "\0" not in inner:
                yield inner
    elif type(value) is list:
        for inner in value:
            yield from _paths(inner)


def _place(path: str, top: str = "") -> tuple[int, int, str, bool]:
    """What there is at a path, or at the next one above it; what is missing; may one write there.

    OSError if ``top`` is not there, or cannot be looked into.
    """
    above = path
    while not os.path.lexists(above or "."):
        if above in (top, "/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), above)
        above = os.path.dirname(above)
    found, where = os.stat(above or "."), os.statvfs(above or ".")
    missing = path[len(above) :].strip("/")
    return found.st_dev, found.st_ino, missing, bool(where.f_flag & os.ST_RDONLY)

"""What a service manager says to its services, and they to it: sd_listen_fds(3), sd_notify(3).

Both are plain conventions, in the environment and on a datagram socket.  Knows nothing of what is
served.
Imports: os, cni.native.
"""

from __future__ import annotations

import os

from cni.native import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_FD = 3  # SD_LISTEN_FDS_START


def passed_socket(environ: Mapping[str, str], pid: int) -> socket.socket | None:
    """The listening socket that was passed to process ``pid``, or None.

    ValueError if what was passed is not exactly one stream socket of AF_UNIX that listens.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return None
    count = environ.get("LISTEN_FDS", "")
    if count != "1":
        raise ValueError(f"LISTEN_FDS is {count!r}: one socket is served, no more and no less")
    os.set_inheritable(FIRST_FD, False)
    try:
        passed = socket.socket(-1, -1, -1, FIRST_FD)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ValueError(f"descriptor {FIRST_FD} is no socket: {error.strerror}") from error
    if (passed.family, passed.type, listens) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        raise ValueError(f"descriptor {FIRST_FD} is not a listening stream socket of AF_UNIX")
    return passed


def notify(environ: Mapping[str, str], state: str) -> None:
    """Tell the service manager a state such as "READY=1", if there is one; OSError."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        manager.sendto(state.encode(), address)
    finally:
        manager.close()

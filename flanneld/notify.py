"""sd_notify(3): tells the service manager how it stands with the daemon."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` or the like to ``NOTIFY_SOCKET``, if there is one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(path)
            sender.send(state.encode())
    except OSError as error:
        _log.warning("the service manager does not listen", extra={"socket": path, "error": error})

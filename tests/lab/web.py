"""Pages, as a client in a network namespace gets them."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

from conformance.state import entered

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S = 10.0


def get(netns: Path, host: str, port: int, page: str) -> tuple[int, bytes]:
    """Fetch a page: status and content. OSError."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        with entered(netns):
            connection.sock = socket.create_connection((host, port), _TIMEOUT_S)
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"http://{host}:{port}{page}: {error!r}") from error
    finally:
        connection.close()

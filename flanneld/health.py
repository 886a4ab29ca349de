"""A small HTTP server for probes: ``/healthz``, ``/readyz`` and ``/metrics``.

Bodies and codes of the first two are the Go daemon's.  Each connection serves one GET and is
closed; one that is slow, or sends too much, is closed without an answer.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)
_PATIENCE_S = 5.0
_LONGEST_HEAD = 8192

Answer = tuple[HTTPStatus, bytes]


def pages(
    ready: Callable[[], bool], metrics: Callable[[], bytes]
) -> Mapping[str, Callable[[], Answer]]:
    """Give the page of each path."""
    return {
        "/healthz": lambda: (HTTPStatus.OK, b"flanneld is running"),
        "/readyz": lambda: (
            (HTTPStatus.OK, b"flanneld is ready")
            if ready()
            else (HTTPStatus.SERVICE_UNAVAILABLE, b"flanneld is not ready yet")
        ),
        "/metrics": lambda: (HTTPStatus.OK, metrics()),
    }


async def serve(
    address: str, port: int, served: Mapping[str, Callable[[], Answer]]
) -> asyncio.Server:
    """Listen; OSError, naming address and port, if another program does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, served))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _log.debug("a probe went away", extra={"peer": writer.get_extra_info("peername")})
        finally:
            writer.close()

    return await asyncio.start_server(answer, address, port, limit=_LONGEST_HEAD)


def _response(head: bytes, served: Mapping[str, Callable[[], Answer]]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    page = served.get(path)
    if method not in (b"GET", b"HEAD"):
        status, body = HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n"
    elif page is None:
        status, body = HTTPStatus.NOT_FOUND, ", ".join(served).encode() + b"\n"
    else:
        status, body = page()
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)

"""A small HTTP server for probes: ``/healthz``, ``/readyz`` and ``/metrics``.

Codes and first lines of the first two are the Go daemon's; what is wrong stands behind them.  Each
connection serves one GET and is closed; one that is slow, or sends too much, is closed without an
answer.  There are never more than MOST: whoever comes takes the place of the one that has had its
time the longest, so that a probe is answered however many others say nothing.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from flanneld.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flanneld.readiness import Readiness

_log = logging.getLogger(__name__)
_PATIENCE_S = 5.0
_LONGEST_HEAD = 8192
MOST = 64  # connections at once
_MOST_CAUSES = 50  # lines of /readyz

Answer = tuple[HTTPStatus, bytes]


def pages(readiness: Readiness, metrics: Callable[[], bytes]) -> Mapping[str, Callable[[], Answer]]:
    """Give the page of each path."""
    return {
        "/healthz": lambda: (HTTPStatus.OK, b"flanneld is running"),
        "/readyz": lambda: _readyz(readiness),
        "/metrics": lambda: (HTTPStatus.OK, metrics()),
    }


def _readyz(readiness: Readiness) -> Answer:
    causes = readiness.causes
    lines = [
        f"{'problem' if cause.blocks else 'warning'}: {plain(str(cause))}"
        for cause in causes[:_MOST_CAUSES]
    ]
    if len(causes) > _MOST_CAUSES:
        lines.append(f"and {len(causes) - _MOST_CAUSES} more: flanneld status lists them")
    if readiness.ready:
        return HTTPStatus.OK, "\n".join(["flanneld is ready", *lines]).encode()
    return HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(["flanneld is not ready yet", *lines]).encode()


async def serve(
    address: str, port: int, served: Mapping[str, Callable[[], Answer]]
) -> asyncio.Server:
    """Listen; OSError, naming address and port, if another program does."""
    open_ones: dict[asyncio.StreamWriter, None] = {}  # the oldest first

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_ones) >= MOST:
            oldest = next(iter(open_ones))
            del open_ones[oldest]
            oldest.transport.abort()
        open_ones[writer] = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, served))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _log.debug("a probe went away", extra={"peer": writer.get_extra_info("peername")})
        finally:
            open_ones.pop(writer, None)
            writer.close()

    return await asyncio.start_server(answer, address, port, limit=_LONGEST_HEAD, backlog=MOST)


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

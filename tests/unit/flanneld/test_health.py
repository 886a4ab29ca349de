"""The pages for probes, over real sockets: what is asked for, and what a hostile client gets."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from flanneld import health
from flanneld.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Served:
    """A server on a port of loopback's; `ready` can be changed."""

    def __init__(self) -> None:
        self.ready = False
        self.metrics = Metrics()
        self.port = 0

    async def start(self) -> asyncio.Server:
        pages = health.pages(lambda: self.ready, self.metrics.text)
        server = await health.serve("127.0.0.1", 0, pages)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.decode().partition("\r\n\r\n")
        if method != "HEAD":
            assert f"Content-Length: {len(body)}" in head
        return int(head.split()[1]), body


def run(body: Callable[[Served], Awaitable[None]]) -> None:
    async def serving() -> None:
        served = Served()
        async with await served.start():
            await body(served)

    asyncio.run(serving())


def test_bodies_are_the_go_daemon_s() -> None:
    async def body(served: Served) -> None:
        assert await served.get("/healthz") == (200, "flanneld is running")
        assert await served.get("/readyz") == (503, "flanneld is not ready yet")
        served.ready = True
        assert await served.get("/readyz?verbose") == (200, "flanneld is ready")
        assert await served.get("/readyz", "HEAD") == (200, "")
        served.ready = False
        assert (await served.get("/readyz"))[0] == HTTPStatus.SERVICE_UNAVAILABLE

    run(body)


def test_metrics() -> None:
    async def body(served: Served) -> None:
        served.metrics.peers.set(7)
        served.metrics.repaired.inc(3)
        served.metrics.latency.observe(0.3)
        status, text = await served.get("/metrics")
        assert status == HTTPStatus.OK
        for line in (
            "flannel_peers 7.0",
            "flannel_drift_repaired_total 3.0",
            'flannel_event_latency_seconds_bucket{le="0.5"} 1.0',
        ):
            assert line in text.splitlines()

    run(body)


def test_other_paths_and_methods() -> None:
    async def body(served: Served) -> None:
        assert await served.get("/") == (404, "/healthz, /readyz, /metrics\n")
        assert (await served.get("/healthz", "POST"))[0] == HTTPStatus.METHOD_NOT_ALLOWED

    run(body)


@pytest.mark.parametrize(
    "request_", [b"", b"GET /healthz HTTP/1.1\r\n", b"x" * 100_000, b"\r\n\r\n", b"\0\xff\r\n\r\n"]
)
def test_a_client_that_says_nothing_sensible_harms_nobody(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PATIENCE_S", 0.2)

    async def body(served: Served) -> None:
        try:
            answer = await served.ask(request_)
        except ConnectionError:  # what it had not read yet is reset
            answer = b""
        assert answer == b"" or answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
        assert (await served.get("/healthz"))[0] == HTTPStatus.OK

    run(body)

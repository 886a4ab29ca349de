"""The pages for probes, over real sockets: what is asked for, and what a hostile client gets."""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from flanneld import health
from flanneld.metrics import Metrics
from flanneld.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Served:
    """A server on a port of loopback's; `readiness` can be changed."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.readiness = Readiness(
            {"rules": "not looked at"}, lambda: self.metrics.show(self.readiness)
        )
        self.port = 0

    async def start(self) -> asyncio.Server:
        pages = health.pages(self.readiness, self.metrics.text)
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


def test_the_first_lines_are_the_go_daemon_s_and_causes_follow() -> None:
    async def body(served: Served) -> None:
        assert await served.get("/healthz") == (200, "flanneld is running")
        status, text = await served.get("/readyz")
        assert (status, text.splitlines()[0]) == (503, "flanneld is not ready yet")
        assert text.splitlines()[1].startswith("problem: not looked at (since 20")
        served.readiness.report("rules")
        assert await served.get("/readyz?verbose") == (200, "flanneld is ready")
        assert await served.get("/readyz", "HEAD") == (200, "")
        served.readiness.report("store", (), ["etcd is away\x1b[2J\nflanneld is not ready"])
        status, text = await served.get("/readyz")
        assert status == HTTPStatus.OK
        ready, cause = text.splitlines()
        assert ready == "flanneld is ready"
        assert cause.startswith(r"warning: etcd is away\x1b[2J\nflanneld is not ready (since")
        served.readiness.report("rules", ["gone"])
        assert (await served.get("/readyz"))[0] == HTTPStatus.SERVICE_UNAVAILABLE
        served.readiness.report("peers", (), [f"peer {n}" for n in range(999)])
        assert (await served.get("/readyz"))[1].endswith("more: flanneld status lists them")

    run(body)


def test_a_probe_is_answered_whatever_others_hold_open() -> None:
    async def body(served: Served) -> None:
        before = len(os.listdir("/proc/self/fd"))
        silent = []
        for n in range(10 * health.MOST):
            silent.append(await asyncio.open_connection("127.0.0.1", served.port))
            if n % health.MOST == 0:
                assert (await served.get("/healthz"))[0] == HTTPStatus.OK
        ours = len(os.listdir("/proc/self/fd")) - before - len(silent)
        assert ours <= 2 * health.MOST + 1
        for _, writer in silent:
            writer.close()

    run(body)


def test_metrics() -> None:
    async def body(served: Served) -> None:
        served.metrics.peers.set(7)
        served.metrics.repaired.inc(3)
        served.metrics.latency.observe(0.3)
        status, text = await served.get("/metrics")
        assert status == HTTPStatus.OK
        served.readiness.report("rules")
        served.readiness.report("peers", ["a", "b"], ["c"])
        status, text = await served.get("/metrics")
        for line in (
            "flannel_peers 7.0",
            "flannel_problems 3.0",
            "flannel_ready 0.0",
            'flannel_causes{blocks="yes",part="peers"} 2.0',
            'flannel_causes{blocks="no",part="peers"} 1.0',
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
    async def body(served: Served) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(health, "_PATIENCE_S", 0.2)
            try:
                answer = await served.ask(request_)
            except ConnectionError:  # what it had not read yet is reset
                answer = b""
        assert answer == b"" or answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
        assert (await served.get("/healthz"))[0] == HTTPStatus.OK

    run(body)

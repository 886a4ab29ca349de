"""The HTTP client: whatever the other side does, an answer or a sentence comes, and in time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from flanneld import files
from flanneld.http import place
from flanneld.http.client import Client
from flanneld.http.connection import Request
from flanneld.http.credentials import Credentials
from flanneld.http.errors import Refused, Unanswered
from flanneld.http.tls import TLS
from tests.flanneld.apiserver import api_server, in_loop
from tests.kube.pki import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

NODES = Request("GET", "/api/v1/nodes")
NAME = "kubernetes.default.svc"


def authority(folder: Path, *names: str) -> Authority:
    folder.mkdir(exist_ok=True)
    made = Authority(folder, str(folder))
    made.issue("server", "/CN=server", *(names or (f"DNS:{NAME}",)))
    made.issue("me", "/CN=me")
    return made


def serving(made: Authority, *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made.path("ca.crt"))
    context.load_cert_chain(made.path("server.crt"), made.path("server.key"))
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    return context


def client(url: str, tls: TLS | None = None, name: str = "", **fields: object) -> Client:
    where = place.parse(url)
    where = place.Place(where.host, where.port, where.secure, name)
    return Client([where], Credentials(tls), **fields)  # type: ignore[arg-type]


async def ask(caller: Client) -> dict[str, object]:
    try:
        return await caller.call(NODES)
    finally:
        caller.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def raw(handler: Handler) -> AsyncIterator[str]:
    """A server that says what the handler says; its URL."""
    writers = list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


@in_loop
async def test_a_certificate_may_have_another_name_than_the_address(tmp_path: Path) -> None:
    made = authority(tmp_path)
    tls = TLS(cafile=made.path("ca.crt"))
    async with api_server(tls=serving(made)) as server:
        assert (await ask(client(server.url, tls, NAME)))["kind"] == "NodeList"
        with pytest.raises(Unanswered, match="not for this address"):
            await ask(client(server.url, tls))
        with pytest.raises(Unanswered, match="of no authority that is known here"):
            await ask(client(server.url, TLS(), NAME))
        assert await ask(client(server.url, TLS(insecure=True)))
        with pytest.raises(Unanswered, match="is it https://"):
            await ask(client(server.url.replace("https", "http")))


@in_loop
async def test_a_client_shows_its_certificate(tmp_path: Path) -> None:
    made = authority(tmp_path)
    cert, key, ca = (files.read(made.path(name)) or b"" for name in ("me.crt", "me.key", "ca.crt"))
    async with api_server(tls=serving(made, asks=True)) as server:
        assert await ask(client(server.url, TLS(ca=ca, cert=cert, key=key), NAME))
        with pytest.raises(Unanswered, match="does it want a client's certificate"):
            await ask(client(server.url, TLS(ca=ca), NAME))
        with pytest.raises(Unanswered, match="No such file"):
            await ask(client(server.url, TLS(cafile="/nowhere/ca.crt"), NAME))


@in_loop
async def test_an_authority_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    old, new = authority(tmp_path / "old"), authority(tmp_path / "new")
    trusted = tmp_path / "ca.crt"
    shutil.copy(old.path("ca.crt"), trusted)
    async with api_server(tls=serving(old)) as server:
        caller = client(server.url, TLS(cafile=str(trusted)), NAME)
        assert await caller.call(NODES)
        await server.stop()
        server.tls = serving(new)
        await server.start()
        with pytest.raises(Unanswered, match="of no authority"):
            await caller.call(NODES)
        shutil.copy(new.path("ca.crt"), tmp_path / "fresh")
        (tmp_path / "fresh").rename(trusted)  # as kubelet replaces a volume
        assert await ask(caller)


@in_loop
async def test_ipv6(tmp_path: Path) -> None:
    made = authority(tmp_path, "IP:::1")
    async with api_server(host="::1", tls=serving(made)) as server:
        assert await ask(client(server.url, TLS(cafile=made.path("ca.crt"))))
        assert server.asked[0].headers["host"] == f"[::1]:{server.port}"


@in_loop
async def test_a_proxy_of_the_environment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with api_server() as server:
        assert await ask(client(server.url))


@in_loop
async def test_a_proxy_that_is_named_does(tmp_path: Path) -> None:
    made, asked = authority(tmp_path), list[bytes]()
    async with api_server(tls=serving(made)) as server:

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            other, there = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_pass(reader, there), _pass(other, writer))

        async with raw(proxy) as url:
            way = place.parse(url.replace("//", "//me:secret@"))
            tls = TLS(cafile=made.path("ca.crt"))
            assert await ask(client("https://api.example:6443", tls, NAME, proxy=way))
        assert asked[0].startswith(b"CONNECT api.example:6443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in asked[0]


@in_loop
async def test_a_proxy_that_refuses_is_named() -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    async with raw(proxy) as url:
        with pytest.raises(Unanswered, match=r"the proxy .* answers 'HTTP"):
            await ask(client("https://api.example:6443", proxy=place.parse(url)))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
ODD = {
    "silence": (b"", "no answer in time"),
    "half an answer": (HEAD + b"{", "no answer in time"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "illegal"),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 18), "too long"),
}


@pytest.mark.parametrize("kind", ODD)
@in_loop
async def test_odd_servers(kind: str) -> None:
    said, why = ODD[kind]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await reader.read()
        writer.close()

    async with raw(answer) as url:
        with pytest.raises(Unanswered, match=why):
            await ask(client(url, timeout_s=0.3))


@in_loop
async def test_a_drip_is_no_answer() -> None:
    """A byte now and then keeps nobody waiting."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.1)

    async with raw(answer) as url:
        with pytest.raises(Unanswered, match="no answer in time"):
            await ask(client(url, timeout_s=0.3))


@in_loop
async def test_a_connection_is_used_again_unless_it_was_closed() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with raw(answer) as url:
        caller = client(url)
        for _ in range(6):
            assert await caller.call(NODES) == {}
        assert connections == 3
        caller.close()
        await asyncio.sleep(0)


@in_loop
async def test_a_refusal_says_what_the_server_says() -> None:
    async with api_server() as server:
        server.fail(lambda _: True, status=403, body={"message": "no\x1b[31m, you may not"})
        with pytest.raises(Refused, match=r"no\\x1b\[31m, you may not") as refused:
            await ask(client(server.url))
        assert refused.value.status == 403


@in_loop
async def test_a_line_may_be_long_and_a_broken_one_is_none() -> None:
    line = json.dumps({"x": "y" * 300_000}).encode() + b"\n"
    chunk = b"%x\r\n%b\r\n" % (len(line), line)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk[:999])
        writer.close()

    async with raw(answer) as url:
        caller, lines = client(url), list[bytes]()
        with pytest.raises(Unanswered, match="closed the connection"):
            async with caller.answer(NODES, 5.0) as stream:
                lines.extend([each async for each in stream.lines()])
        assert lines == []
        async with caller.answer(NODES, 5.0) as stream:
            assert await anext(stream.lines()) == line[:-1]
        caller.close()


_HALF_OPEN = """
import asyncio, socket, subprocess, sys, time
from flanneld.http import connection, place
from flanneld.http.errors import Unanswered

values = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_USER_TIMEOUT: 2000}
assert values.keys() <= {option for _, option, _ in connection._OPTIONS}
connection._OPTIONS = tuple((l, o, values.get(o, v)) for l, o, v in connection._OPTIONS)

async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
    await asyncio.sleep(999)

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 6443)
    link = await connection.connect(place.parse("http://127.0.0.1:6443"), None)
    await link.ask(connection.Request("GET", "/"))
    subprocess.run(["nft", "add table ip t; add chain ip t c { type filter hook input priority 0;"
        " policy drop; }"], check=True)
    link.silence_s = 300.0
    try:
        async for chunk in link.chunks():
            pass
    except Unanswered as error:
        print(error)

asyncio.run(main())
"""


@pytest.mark.kernel
def test_a_server_that_vanishes_is_noticed() -> None:
    """Nothing but dropped packets: the kernel would wait for 15 minutes, or for ever."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("needs root and nft")
    script = f"ip link set lo up && exec {sys.executable} -c '{_HALF_OPEN}'"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script.replace("'HTTP", '"HTTP')],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "not reached any more (connection timed out)" in done.stdout, done.stderr

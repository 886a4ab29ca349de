"""One HTTP/1.1 connection: dial, then one exchange after another; h11 speaks, sockets carry.

A peer that vanishes without a word is noticed by the kernel within 25 s, whether there is something
to send or only to wait for.  Whatever fails is Unanswered.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import zlib
from contextlib import aclosing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

import h11

from flanneld.http.errors import unanswered

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from flanneld.http.place import Place

_FAILURES = (OSError, EOFError, h11.ProtocolError, zlib.error)
_CONNECT_S = 5.0  # for one address, and for its TLS handshake
_OPTIONS = (  # of tcp(7): a silent peer is asked after 10 s, and given up 20 s after its last word
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_CHUNK = 1 << 16  # bytes that are read at once, and that a head may have
_LONGEST_LINE = 1 << 24


class Request(NamedTuple):
    """What is asked for; ``target`` is path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Connection:
    """A connection to a place, used by one exchange at a time.

    ``status`` and ``headers`` (names in lower case) are the last answer's; ``silence_s`` is how
    long the other side may say nothing.
    """

    def __init__(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.place, self.silence_s = place, _CONNECT_S
        self.status, self.headers = 0, dict[str, str]()
        self._reader, self._writer = reader, writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_CHUNK)

    async def ask(self, request: Request) -> None:
        """Send a request, read the answer's head."""
        headers = [("Host", self.place.authority), *request.headers]
        if request.body or request.method != "GET":
            headers.append(("Content-Length", str(len(request.body))))
        target = self.place.base + request.target
        with unanswered(self.place, *_FAILURES):
            head = h11.Request(method=request.method, target=target, headers=headers)
            for event in (head, h11.Data(data=request.body), h11.EndOfMessage()):
                self._writer.write(self._h11.send(event) or b"")
            await self._writer.drain()
            while not isinstance(answer := await self._event(), h11.Response):
                pass  # 1xx
        self.status = answer.status_code
        self.headers = {name.decode(): text.decode("latin-1") for name, text in answer.headers}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the body as it comes."""
        zipped = self.headers.get("content-encoding") == "gzip"
        inflate = zlib.decompressobj(wbits=31).decompress if zipped else bytes
        with unanswered(self.place, *_FAILURES):
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                yield inflate(event.data)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Give the body line by line; what no line break ends is dropped."""
        rest = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                *whole, last = chunk.split(b"\n")
                for line in whole:
                    yield bytes(rest + line)
                    rest.clear()
                rest += last
                if len(rest) > _LONGEST_LINE:
                    return

    async def body(self, longest: int = 1 << 28) -> bytes:
        """Give the whole body, up to so many bytes and a chunk."""
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > longest:
                    break
        return bytes(body)

    def recycle(self) -> bool:
        """Make ready for another exchange; whether that can be."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    @property
    def is_open(self) -> bool:
        """Whether the other side has not closed it, as far as is known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        """Close it at once, whatever it is in."""
        self._writer.transport.abort()

    async def _event(self) -> Any:
        data = b"..."
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(self.silence_s):
                    data = await self._reader.read(_CHUNK)
                self._h11.receive_data(data)
        except h11.RemoteProtocolError:
            if data:
                raise
            raise EOFError from None
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise EOFError
        return event


async def connect(
    place: Place, context: ssl.SSLContext | None, proxy: Place | None = None
) -> Connection:
    """Connect, with TLS if there is a context, through a proxy if there is one."""
    name = place.name or place.host
    with unanswered(place, *_FAILURES):
        if proxy is None:
            return Connection(place, *await _dial(place, context, name))
        reader, writer = await _dial(proxy, context if proxy.secure else None, proxy.host)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await _tunnel(place, proxy, reader, writer)
                if context is not None:
                    await writer.start_tls(context, server_hostname=name)
        except BaseException:
            writer.transport.abort()
            raise
    return Connection(place, reader, writer)


async def _tunnel(
    place: Place, proxy: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Have a proxy connect on (CONNECT of RFC 9110, 9.3.6); ConnectionError if it refuses."""
    lines = [f"CONNECT {place.authority} HTTP/1.1", f"Host: {place.authority}"]
    if proxy.user:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.user.encode()).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode("latin-1")
    if answer.split(" ")[1:2] != ["200"]:
        raise ConnectionError(f"the proxy {proxy} answers {answer!r}")


async def _dial(
    place: Place, context: ssl.SSLContext | None, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError = OSError(f"{place.host} has no address")
    for family, address in await _addresses(place):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for level, option, value in _OPTIONS:
                sock.setsockopt(level, option, value)
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, address)
            tls: Any = {"server_hostname": name, "ssl_handshake_timeout": _CONNECT_S}
            tls = tls if context is not None else {}
            return await asyncio.open_connection(sock=sock, ssl=context, limit=_CHUNK, **tls)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


async def _addresses(place: Place) -> list[tuple[int, tuple[str, int]]]:
    """Look a host up, unless it is an address: that waits for nobody."""
    try:
        version = ip_address(place.host.partition("%")[0]).version
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        return [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return [(family, (place.host, place.port))]

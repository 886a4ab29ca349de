"""An API server for faults: as much of Kubernetes' as the store asks for, and what goes wrong.

It lives in the test's own event loop and speaks HTTP/1.1 by hand, so that it can break off wherever
a real one could. What Kubernetes itself does is tested against the real one (tests/kube).
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

Document = dict[str, Any]
PREFIX = "flannel.alpha.coreos.com/"


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query and not self.is_stream

    @property
    def is_stream(self) -> bool:
        """A list as events."""
        return "sendInitialEvents" in self.query

    @property
    def is_list(self) -> bool:
        return self.path == "/api/v1/nodes" and not self.query.keys() & {"watch", "fieldSelector"}


@dataclass
class Fault:
    """What the next request like this meets: an answer, silence, or the end of the connection."""

    fits: Callable[[Asked], bool] = lambda _: True
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Document = field(default_factory=dict)
    hangs: bool = False


class ApiServer:
    """Nodes with revisions; `faults` are met in turn, `asked` is what was asked for."""

    def __init__(
        self,
        *,
        watch_list: bool = False,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.watch_list = watch_list
        self.host, self.tls = host, tls
        self.nodes: dict[str, Document] = {}
        self.pods: dict[str, Document] = {}
        self.revision = 100
        self.oldest = 100
        self.history: list[tuple[int, Document]] = []
        self.faults: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.events: list[Document] = []
        self.servers: list[tuple[str, int]] = []
        self.token = ""
        self.uids = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * (self.tls is not None)}://{host}:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be away: nothing listens, and what was open is cut."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    # ------------------------------------------------------------------------------ what people do

    async def put(self, name: str, *cidrs: str, **annotations: str) -> Document:
        """Make a Node, or change its annotations; None as a podCIDR leaves it without."""
        node = self.nodes.get(name)
        if node is None:
            self.uids += 1
            metadata = {"name": name, "uid": f"uid-{self.uids}"}
            node = {"metadata": metadata, "spec": {}, "status": {}}
        node = copy.deepcopy(node)
        if cidrs:
            node["spec"] = {"podCIDR": cidrs[0], "podCIDRs": [*cidrs]}
        if annotations:
            told = {PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
            node["metadata"]["annotations"] = node["metadata"].get("annotations", {}) | told
        await self.store("MODIFIED" if name in self.nodes else "ADDED", node)
        return node

    async def wipe(self, name: str) -> None:
        """Take all annotations away, as a controller with an old copy does."""
        node = copy.deepcopy(self.nodes[name])
        node["metadata"].pop("annotations", None)
        await self.store("MODIFIED", node)

    async def delete(self, name: str) -> None:
        await self.store("DELETED", copy.deepcopy(self.nodes[name]))

    async def forget(self) -> None:
        """Forget the past: who asks for it is told 410."""
        async with self._changed:
            self.history.clear()
            self.oldest = self.revision
            self.revision += 1
        self.cut()

    async def store(self, kind: str, node: Document) -> None:
        async with self._changed:
            self.revision += 1
            node["metadata"]["resourceVersion"] = str(self.revision)
            if kind == "DELETED":
                self.nodes.pop(node["metadata"]["name"])
            else:
                self.nodes[node["metadata"]["name"]] = node
            self.history.append((self.revision, {"type": kind, "object": node}))
            self._changed.notify_all()

    async def bookmark(self) -> None:
        async with self._changed:
            mark = {"kind": "Node", "metadata": {"resourceVersion": str(self.revision)}}
            self.history.append((self.revision, {"type": "BOOKMARK", "object": mark}))
            self._changed.notify_all()

    def annotations(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.nodes[name]["metadata"].get("annotations", {})
        return {key.removeprefix(PREFIX): value for key, value in found.items()}

    def condition(self, name: str) -> Document:
        conditions = self.nodes[name]["status"].get("conditions", [])
        return next((one for one in conditions if one["type"] == "NetworkUnavailable"), {})

    def fail(self, fits: Callable[[Asked], bool], **fields: Any) -> None:
        self.faults.append(Fault(fits, **fields))

    # ------------------------------------------------------------------------------------- serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await self._answer(await _request(reader), writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked.append(asked)
        if self.token and asked.headers.get("authorization") != f"Bearer {self.token}":
            _write(writer, 401, _status(401, "Unauthorized"))
            return
        for fault in self.faults:
            if fault.fits(asked):
                self.faults.remove(fault)
                await self._fail(fault, writer)
                return
        if "watch" in asked.query:
            await self._watch(asked, writer)
            return
        status, body = await self._call(asked)
        _write(writer, status, body)

    async def _fail(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault.hangs:
            await asyncio.Event().wait()
        if not fault.status:
            writer.transport.abort()
            raise ConnectionError
        _write(writer, fault.status, fault.body, fault.headers)

    async def _call(self, asked: Asked) -> tuple[int, Document]:
        if asked.path == "/api/v1/nodes":
            return self._list(asked)
        parts = asked.path.split("/")
        if asked.method == "PATCH" and asked.path.startswith("/api/v1/nodes/"):
            return await self._patch(parts[4], json.loads(asked.body))
        if asked.path.startswith("/api/v1/namespaces/") and parts[5] == "pods":
            pod = self.pods.get(parts[6])
            return (200, pod) if pod else (404, _status(404, "pods not found"))
        if asked.method == "POST" and asked.path.endswith("/events"):
            self.events.append(json.loads(asked.body))
            return 201, {}
        if "/endpointslices/" in asked.path and self.servers:
            ports = [{"name": "https", "port": port} for port in {port for _, port in self.servers}]
            points = [{"addresses": [host]} for host, _ in self.servers]
            return 200, {"ports": ports, "endpoints": points}
        return 404, _status(404, "the server could not find the requested resource")

    def _list(self, asked: Asked) -> tuple[int, Document]:
        found = sorted(
            _selected(self.nodes.values(), asked), key=lambda one: one["metadata"]["name"]
        )
        start = int(asked.query.get("continue", "0"))
        limit = int(asked.query.get("limit", "0")) or len(found)
        metadata = {"resourceVersion": str(self.revision)}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        return 200, {
            "kind": "NodeList",
            "metadata": metadata,
            "items": found[start : start + limit],
        }

    async def _patch(self, name: str, change: Document) -> tuple[int, Document]:
        if name not in self.nodes:
            return 404, _status(404, f'nodes "{name}" not found')
        node = copy.deepcopy(self.nodes[name])
        metadata = change.get("metadata", {})
        if metadata.get("uid", node["metadata"]["uid"]) != node["metadata"]["uid"]:
            return 409, _status(409, "Precondition failed: UID in precondition")
        annotations = node["metadata"].get("annotations", {}) | metadata.get("annotations", {})
        kept = {key: value for key, value in annotations.items() if value is not None}
        if kept:
            node["metadata"]["annotations"] = kept
        for told in change.get("status", {}).get("conditions", []):
            others = [
                one for one in node["status"].get("conditions", []) if one["type"] != told["type"]
            ]
            node["status"]["conditions"] = [*others, told]
        await self.store("MODIFIED", node)
        return 200, node

    async def _watch(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "sendInitialEvents" in asked.query and not self.watch_list:
            _write(writer, 422, _status(422, "sendInitialEvents is forbidden for watch"))
            return
        since = int(asked.query.get("resourceVersion", "0"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if 0 < since < self.oldest:
            _chunk(writer, {"type": "ERROR", "object": _status(410, "too old resource version")})
            writer.write(b"0\r\n\r\n")
            return
        if "sendInitialEvents" in asked.query:
            since = self.revision
            for node in _selected(self.nodes.values(), asked):
                _chunk(writer, {"type": "ADDED", "object": node})
            mark = {
                "resourceVersion": str(since),
                "annotations": {"k8s.io/initial-events-end": "true"},
            }
            _chunk(writer, {"type": "BOOKMARK", "object": {"kind": "Node", "metadata": mark}})
        sent = next(
            (at for at, (rev, _) in enumerate(self.history) if rev > since), len(self.history)
        )
        history = self.history
        while not writer.is_closing():
            for _, event in history[sent:]:
                if event["type"] == "BOOKMARK" or [*_selected([event["object"]], asked)]:
                    _chunk(writer, event)
            sent = len(history)
            await writer.drain()
            async with self._changed:
                await self._changed.wait()
        raise ConnectionError


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own."""

    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def api_server(**fields: Any) -> AsyncIterator[ApiServer]:
    """A server that is away in the end."""
    server = ApiServer(**fields)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rest = head.strip().split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Asked(method, parts.path, dict(parse_qsl(parts.query)), headers, body)


def _write(
    writer: asyncio.StreamWriter, status: int, body: Document, headers: dict[str, str] | None = None
) -> None:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)


def _chunk(writer: asyncio.StreamWriter, event: Document) -> None:
    line = json.dumps(event).encode() + b"\n"
    half = len(line) // 2  # a chunk is no line
    for part in (line[:half], line[half:]):
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))


def _selected(nodes: Any, asked: Asked) -> Iterator[Document]:
    name = asked.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return (node for node in nodes if name in ("", node["metadata"]["name"]))


def _status(code: int, message: str) -> Document:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}

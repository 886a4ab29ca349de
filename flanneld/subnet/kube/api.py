"""The calls of the Kubernetes API that the store makes.  What is refused is a StoreError.

Lists and watches give Node after Node: none is ever held as a whole, which at 5,000 Nodes would be
300 MB.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from flanneld.http.connection import Request
from flanneld.http.errors import Refused, Unanswered
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from flanneld.http.client import Client
    from flanneld.http.items import Items

_NODES = "/api/v1/nodes"
_SLICE = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
_ENDPOINTS = "/api/v1/namespaces/default/endpoints/kubernetes"
_MERGE = (("Content-Type", "application/strategic-merge-patch+json"),)
_JSON = (("Content-Type", "application/json"),)
_ZIPPED = (("Accept-Encoding", "gzip"),)
_PAGE = 500
_WATCH_S = (300, 600)
_LIST_S = 60.0  # for a page: what has not come by then is a list that is not whole
_OVERDUE_S = 30.0  # after its end a watch is closed from this side
SILENCE_S = 120.0  # a server tells of its own accord how far it is, once a minute
_INITIAL = "k8s.io/initial-events-end"
_FIRST_SILENCE_S = 10.0  # of a server that ignores what it does not know


class Gone(Exception):
    """What was asked for is so old that the server does not know it: read all Nodes again."""


class Unsupported(Exception):
    """The server does not know this kind of request."""


class Api:
    """One API server, or several that are one; ``alone``: of all Nodes only one's own counts."""

    def __init__(self, client: Client, *, alone: bool = False) -> None:
        self.client = client
        self._alone = alone

    async def node(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """Give a Node, None if there is none, and the version of everything at that time."""
        path = f"{_NODES}?{urlencode(_selected(name))}"
        found = await self._call("reading this node's Node", "GET", path)
        with expected("a list of Nodes"):
            return next(iter(found["items"]), None), str(found["metadata"]["resourceVersion"])

    async def node_of(self, namespace: str, pod: str) -> str:
        """Give the name of the node that a pod runs on."""
        path = f"/api/v1/namespaces/{quote(namespace, '')}/pods/{quote(pod, '')}"
        found = await self._call("reading this daemon's pod", "GET", path)
        with expected("a pod"):
            name = found["spec"].get("nodeName")
        if not name:
            raise StoreError(f"pod {namespace}/{pod} is on no node yet")
        return str(name)

    async def patch(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into the status of a Node; gives it as it is then."""
        path = f"{_NODES}/{quote(name, '')}/status?fieldManager=flanneld"
        body = json.dumps(change, separators=(",", ":"), ensure_ascii=False).encode()
        return await self._call("writing this node's Node", "PATCH", path, _MERGE, body)

    async def tell(self, event: Mapping[str, Any]) -> None:
        """Make an Event."""
        path = "/api/v1/namespaces/default/events"
        await self._call("making an Event", "POST", path, _JSON, json.dumps(event).encode())

    async def servers(self) -> list[tuple[str, int]]:
        """Give addresses and port of all API servers, as they are known in the cluster."""
        try:
            found = await self._call("reading the API servers", "GET", _SLICE)
            subsets: Any = [found | {"addresses": found.get("endpoints") or ()}]
        except StoreError:
            found = await self._call("reading the API servers", "GET", _ENDPOINTS)
            subsets = found.get("subsets") or ()
        with expected("addresses"):
            return [
                (str(address), int(port["port"]))
                for subset in subsets
                for port in subset.get("ports") or ()
                if port.get("name") == "https"
                for one in subset.get("addresses") or ()
                for address in (one.get("addresses") or (one["ip"],))
            ]

    async def list(self, items: Items, own: str) -> AsyncGenerator[dict[str, Any], None]:
        """Give all Nodes, page by page; their version is in ``items.metadata`` then.  Gone."""
        token = ""
        while True:
            query = {"limit": str(_PAGE), "continue": token} if token else {"limit": str(_PAGE)}
            query |= _selected(own) if self._alone else {}
            request = Request("GET", f"{_NODES}?{urlencode(query)}", _ZIPPED)
            with told("reading all Nodes", since=bool(token)):
                async with self.client.answer(request) as answer, aclosing(answer.chunks()) as body:
                    deadline = asyncio.get_running_loop().time() + _LIST_S
                    while chunk := await _within(deadline, body):
                        for node in items.feed(chunk):
                            yield node
            token = items.end()
            if not token:
                return

    async def watch(
        self, version: str, own: str, *, alone: bool = False, first: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Give events from a version on, until the server ends that.  Gone.

        ``first``: all Nodes as they are before (WatchList), then a bookmark that says so;
        Unsupported.
        """
        seconds = random.randint(*_WATCH_S)  # noqa: S311 - no secret
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query |= {"resourceVersion": version} if version else {}
        query |= _selected(own) if alone or self._alone else {}
        if first:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        request = Request("GET", f"{_NODES}?{urlencode(query)}")
        deadline = asyncio.get_running_loop().time() + seconds + _OVERDUE_S
        with told("watching the Nodes", since=True, first=first):
            async with (
                self.client.answer(request, _FIRST_SILENCE_S if first else SILENCE_S) as answer,
                aclosing(answer.lines()) as lines,
            ):
                while line := await _within(deadline, lines):
                    yield _event(line)

    async def _call(
        self,
        what: str,
        method: str,
        target: str,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> dict[str, Any]:
        with told(what):
            return await self.client.call(Request(method, target, headers, body))


def _selected(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"}


async def _within(deadline: float, parts: AsyncGenerator[bytes, None]) -> bytes:
    """Give the next part, b"" at the end; what is overdue is at its end, too."""
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(parts, b"")
    except TimeoutError:
        return b""


def _event(line: bytes) -> dict[str, Any]:
    with expected("an event"):
        event = json.loads(line)
        kind, found = event["type"], event["object"]
        if kind != "ERROR" and not isinstance(found["metadata"]["resourceVersion"], str):
            raise TypeError("resourceVersion")
    if kind != "ERROR":
        return {"type": kind, "object": found}
    if found.get("code") == 410 or found.get("reason") in ("Expired", "Gone"):
        raise Gone
    if "resource version" in str(found.get("message")).lower():
        raise Gone
    raise StoreError(f"the API server has ended the watch: {found.get('message')}")


def is_first_end(event: Mapping[str, Any]) -> bool:
    """Whether an event says that all Nodes have been told now."""
    annotations = event["object"].get("metadata", {}).get("annotations") or {}
    return event["type"] == "BOOKMARK" and annotations.get(_INITIAL) == "true"


@contextmanager
def expected(what: str) -> Iterator[None]:
    """Turn what reading an answer of another shape raises into a StoreError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"the API server sends what is not {what}: {error!r}") from None


@contextmanager
def told(what: str, *, since: bool = False, first: bool = False) -> Iterator[None]:
    """Turn what a request raises into a StoreError.

    Of one that begins ``since`` an earlier answer it may be Gone, of the ``first`` Unsupported.
    """
    try:
        yield
    except Unanswered as error:
        raise StoreError(f"the API server does not answer: {error}") from None
    except Refused as error:
        if first and error.status in (400, 422):
            raise Unsupported from None
        if since and (error.status == 410 or _is_ahead(error)):
            raise Gone from None
        hint = _hint(error)
        raise StoreError(f"the API server refuses: {what}: {error}{hint}", error.after_s) from None


def _is_ahead(error: Refused) -> bool:
    causes = (error.said.get("details") or {}).get("causes") or ()
    return "Too large resource version" in error.text or any(
        cause.get("reason") == "ResourceVersionTooLarge" for cause in causes
    )


def _hint(error: Refused) -> str:
    if error.status == 401:
        return ": it does not know this daemon: is its token, or its certificate, of this cluster?"
    if error.status == 403 and 'User "system:node:' in error.text:
        return (
            ": a kubelet's identity may not read other Nodes: give flanneld one of its own, with"
            " the ClusterRole flannel"
        )
    if error.status == 403 and "forbidden: User" in error.text:
        return ": see the ClusterRole flannel, and what binds it to this user"
    return ""

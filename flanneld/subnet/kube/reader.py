"""What the API server tells of the Nodes: read once, then followed, for as long as it takes.

What it has told last is kept, so that the daemon can start while it is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from flanneld.http.items import Items
from flanneld.readiness import stamp
from flanneld.subnet.kube import bodies, kept, nodes
from flanneld.subnet.kube.api import Gone, Unsupported, expected, is_first_end
from flanneld.subnet.kube.mirror import Mirror
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from flanneld.config import NetConf
    from flanneld.subnet.kube.api import Api
    from flanneld.subnet.kube.kept import Kept
    from flanneld.subnet.kube.nodes import Seen

_log = logging.getLogger(__name__)

_STEADY_S = 30.0  # a watch that has lasted so long may break: that says nothing


class Reader:
    """The Nodes as they are, in a mirror, for the node of this name.

    ``known``: they are from the API server, not from the last run.  ``condition`` is that of this
    node's network; ``stirred`` is set when something of its Node has changed; ``servers`` are the
    API servers' own addresses and ports.
    """

    def __init__(self, api: Api, conf: NetConf, name: str, prefix: str, place: str) -> None:
        self._api, self._prefix, self._place = api, prefix, place
        self._version = ""  # of all Nodes together; "" if they are to be read anew
        self._own_version = ""  # of this node's Node, which may be newer than all together
        self._saved = True
        self._streams = True  # the server may have WatchList
        self.servers: list[tuple[str, int]] = []
        self.name = name
        self.mirror = Mirror(conf, name)
        self.known = False
        self.condition = "", ""
        self.stirred = asyncio.Event()

    async def find(self) -> str:
        """Read this node's Node; gives the version of everything at that time.  StoreError."""
        node, version = await self._api.node(self.name)
        if node is not None:
            self.take(node)
        elif self.mirror.own is not None:
            self.mirror.remove(self.name)
            self.stirred.set()
        return version

    async def read(self) -> None:
        """Read all Nodes; those that are not there any more are forgotten.  StoreError."""
        found, version = await self._streamed() if self._streams else ([], "")
        if not version:
            found, version = await self._listed()
        self.mirror.replace(found)
        self.mirror.fault("", "")
        self._version = version
        self._saved = False
        self.known = True
        self.stirred.set()

    async def _streamed(self) -> tuple[list[Seen], str]:
        """Read all Nodes as events (WatchList), which no server has to hold; "" if it cannot."""
        found: list[Seen] = []
        try:
            async with aclosing(self._api.watch("", self.name, first=True)) as events:
                async for event in events:
                    if is_first_end(event):
                        return found, event["object"]["metadata"]["resourceVersion"]
                    if event["type"] == "ADDED":
                        found.append(self._seen(event["object"]))
        except (Unsupported, Gone, StoreError) as error:
            _log.debug("no WatchList: %r", error)
        self._streams = False
        return [], ""

    async def _listed(self) -> tuple[list[Seen], str]:
        """Read all Nodes page by page."""
        items, found = Items(), list[nodes.Seen]()
        try:
            async with aclosing(self._api.list(items, self.name)) as listed:
                async for node in listed:
                    found.append(self._seen(node))
        except Gone:
            raise StoreError("the list of Nodes has changed while it was read", 0.5) from None
        except ValueError as error:
            raise StoreError(f"the API server sends what is no list: {error}") from None
        return found, str(items.metadata.get("resourceVersion", ""))

    def _seen(self, node: Mapping[str, Any]) -> Seen:
        with expected("a Node"):
            seen = nodes.seen(node, self._prefix)
        if seen.name == self.name:
            self.take(node)
        return seen

    async def follow(self) -> AsyncGenerator[None, None]:
        """Say now, and after each change, that the mirror is as it is to be.  StoreError."""
        yield
        while True:
            if self._version and _is_older(await self.find(), self._version):
                self._version = ""
            if not self._version:
                await self.read()
                yield
            started = time.monotonic()
            try:
                async with aclosing(self._api.watch(self._version, self.name)) as events:
                    async for event in events:
                        if self._apply(event):
                            yield
            except Gone:
                self._version = ""
            except StoreError:
                if time.monotonic() - started < _STEADY_S:
                    raise

    async def own_change(self, seconds: float) -> None:
        """Wait until this node's Node changes, but not longer than that.  StoreError."""
        before, version = self.mirror.own, await self.find()
        with suppress(TimeoutError, Gone, StopAsyncIteration):
            async with (
                asyncio.timeout(seconds),
                aclosing(self._api.watch(version, self.name, alone=True)) as events,
            ):
                while self.mirror.own == before:
                    event = await anext(events)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self.take(event["object"])

    def take(self, node: Mapping[str, Any]) -> bool:
        """Take a Node as it is now; whether it means anything."""
        with expected("a Node"):
            seen = nodes.seen(node, self._prefix)
            condition = nodes.condition(node, bodies.CONDITION)
        if seen.name == self.name:
            self._own_version = node["metadata"].get("resourceVersion", "")
            if (seen, condition) != (self.mirror.own, self.condition):
                self._saved = False
                self.stirred.set()
            self.condition = condition
        changed = self.mirror.put(seen)
        self._saved = self._saved and not changed
        return changed

    def learn(self, servers: list[tuple[str, int]]) -> None:
        """Take the API servers' own addresses."""
        if servers != self.servers:
            self.servers, self._saved = servers, False

    def restore(self, last: Kept, why: str) -> None:
        """Begin with what was kept, since the API server is away."""
        self.mirror.replace(last.nodes)
        self.mirror.fault(
            "",
            f"the other nodes are as the API server told them last, {stamp(last.written)}: {why}",
        )
        _log.warning("starting from what is known of %d nodes", len(last.nodes))

    def load(self) -> Kept | None:
        """Give what was kept of this node's cluster, if anything."""
        last = kept.load(self._place)
        if last is None or last.node != self.name:
            return None
        self.servers = last.servers
        return last

    def save(self) -> None:
        """Keep what the API server has told, if it is new."""
        if self.known and not self._saved:
            self._saved = True
            kept.save(self._place, self.name, self.servers, self.mirror.seen)

    def _apply(self, event: Mapping[str, Any]) -> bool:
        """Take an event of a watch; whether it means anything."""
        found, kind = event["object"]["metadata"], event["type"]
        self._version, name = found["resourceVersion"], found.get("name")
        if kind == "BOOKMARK" or (
            name == self.name and _is_older(self._version, self._own_version)
        ):
            return False
        if kind != "DELETED":
            return self.take(event["object"])
        self._saved = False
        if name == self.name:
            self.stirred.set()
        return self.mirror.remove(name)


def _is_older(version: str, than: str) -> bool:
    """Whether a server knows less than one had before: its data were restored."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)

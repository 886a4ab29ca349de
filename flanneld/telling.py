"""Tells whoever asks how it stands: probes, the commands, the service manager, the metrics.

All of it is read from one ``Readiness``, and from the node and its peers as they are now.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from flanneld import health, liveness, state
from flanneld.notify import notify
from flanneld.program import own_version
from flanneld.readiness import Readiness

if TYPE_CHECKING:
    import asyncio

    from flanneld.lease import Lease
    from flanneld.metrics import Metrics
    from flanneld.node import Node
    from flanneld.options import Options

_log = logging.getLogger(__name__)

_MISSING = {
    "lease": "this node has no subnet yet",
    "peers": "the leases of the other nodes have not been read yet",
    "rules": "the traffic rules have not been looked at yet",
    "files": "subnet.env has not been written yet",
    "way": "the way of pods' packets through this node has not been looked at yet",
}


class Telling:
    """One daemon's; ``readiness`` is what its parts report to."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._settings = state.settings(options)
        self._servers: list[asyncio.Server] = []
        self._node: Node | None = None
        self._peers: tuple[Lease, ...] = ()
        self._was_ready = False
        self._saved: object = None
        self.readiness = Readiness(_MISSING, self.tell)

    async def serve(self) -> None:
        """Answer the commands, and probes if a port is given.  OSError if that is taken."""
        place = liveness.path(self._options.subnet_file)
        try:
            self._servers.append(await liveness.serve(place, self._answer))
        except OSError as error:
            _log.warning("the commands cannot ask this daemon: %s: %s", place, error)
        if not self._options.healthz_port:
            return
        address, port = str(self._options.healthz_ip), self._options.healthz_port
        pages = health.pages(self.readiness, self._metrics.text)
        self._servers.append(await health.serve(address, port, pages))
        _log.info("serving /healthz, /readyz, /metrics", extra={"address": address, "port": port})

    def about(self, node: Node, peers: tuple[Lease, ...]) -> None:
        """Take the node and its peers as they are now, and tell."""
        self._node, self._peers = node, peers
        self.tell()

    def tell(self) -> None:
        """Tell everybody who is to be told without asking."""
        self._metrics.show(self.readiness)
        if self._node is None:
            return
        ready, causes = self.readiness.ready, self.readiness.causes
        if ready != self._was_ready:
            _log.info("ready" if ready else "not ready", extra={"peers": len(self._peers)})
            if ready:
                notify("READY=1")
        notify(
            f"STATUS={self._node.lease.key}, {len(self._peers)} peers, "
            f"{'ready' if ready else 'not ready'}, {len(causes)} problems"
        )
        self._was_ready = ready
        self._save(self._node)

    def _answer(self) -> dict[str, object]:
        causes = [asdict(cause) for cause in self.readiness.causes]
        return {"pid": os.getpid(), "ready": self.readiness.ready, "causes": causes}

    def _save(self, node: Node) -> None:
        """Write what the commands read, if it has changed."""
        told = (node, self._peers, self.readiness.causes)
        if told == self._saved:
            return
        self._saved = told
        try:
            state.save(
                state.State(
                    pid=os.getpid(),
                    version=own_version(),
                    written=time.time(),
                    conf=node.conf,
                    settings=self._settings,
                    external=node.external,
                    identity=node.identity,
                    lease=node.lease,
                    peers=self._peers,
                    ready=self.readiness.ready,
                    causes=self.readiness.causes,
                )
            )
        except (OSError, ValueError) as error:
            _log.warning("the commands will see an old state: %s", error)

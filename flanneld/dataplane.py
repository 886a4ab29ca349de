"""Keeps the kernel as the leases want it: the one loop behind every change, event and tick.

Whatever happens only asks for a pass; a pass plans everything from the leases, and the reconciler
applies what differs.  Nothing is applied before the store has shown its leases once: a restart
leaves the paths of all peers alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from flanneld import target
from flanneld.backend.base import Forwards
from flanneld.config import ConfigError
from flanneld.digest import Digest, listed
from flanneld.forward.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flanneld.backend.base import Backend
    from flanneld.desired import AnyNetwork, Desired
    from flanneld.forward.forwarding import Forwarding
    from flanneld.kernel.reconciler import Reconciler
    from flanneld.lease import Lease
    from flanneld.metrics import Metrics
    from flanneld.node import Node
    from flanneld.readiness import Readiness

_log = logging.getLogger(__name__)

_REST = 4  # after a pass, so many times its length belongs to others: storms cost a fifth of a core
_LONGEST_REST_S = 1.0


class DataPlane:
    """The loop, and the peers that it has planned; what stands in the way it reports.

    ``earlier`` are the networks of this node's earlier run: what is left of them is stale.
    """

    def __init__(
        self,
        backend: Backend,
        reconciler: Reconciler,
        metrics: Metrics,
        readiness: Readiness,
        *,
        blackhole: bool,
        earlier: Iterable[AnyNetwork],
        passed: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._reconciler = reconciler
        self._metrics = metrics
        self._readiness = readiness
        self._drift = Digest(_say_drift)
        self._blackhole = blackhole
        self._earlier = tuple(earlier)
        self._passed = passed
        self._keeper = Keeper(self.touch, metrics.drop)
        self._wanted = asyncio.Event()
        self._since = 0.0
        self._node: Node | None = None
        self._leases: Mapping[str, Lease] | None = None
        self._desired: Desired | None = None
        self.peers: tuple[Lease, ...] = ()

    @property
    def desired(self) -> Desired | None:
        """What the kernel should hold; None before the leases are known."""
        return self._desired

    def settle(self, node: Node) -> None:
        """Take the node as it is now."""
        if node != self._node:
            self._node = node
            self._desired = None
            self.touch()

    def follow(self, leases: Mapping[str, Lease]) -> None:
        """Take all leases of the store."""
        self._leases = leases
        self._desired = None
        self.touch()

    def touch(self) -> None:
        """Ask for a pass: the kernel may have changed."""
        if not self._wanted.is_set():
            self._since = asyncio.get_running_loop().time()
            self._wanted.set()

    async def run(self) -> NoReturn:
        """Make a pass whenever one is asked for."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            since, started = self._since, loop.time()
            if self._node is not None and self._leases is not None:
                await self._pass(self._node, self._leases)
                self._metrics.latency.observe(loop.time() - since)
            await asyncio.sleep(min(_REST * (loop.time() - started), _LONGEST_REST_S))

    async def close(self) -> None:
        """End the process that moves packets, if there is one; what the kernel moves stays."""
        await self._keeper.close()

    async def _pass(self, node: Node, leases: Mapping[str, Lease]) -> None:
        drift = self._desired is not None
        try:
            desired = self._desired or self._plan(node, leases)
            self._desired = desired  # until the leases change, which they may do from here on
            hindrances = await self._keeper.apply(self._forwarding(node))
            report = await self._reconciler.apply(desired)
        except (OSError, ConfigError) as error:
            self._conclude([f"the kernel was not brought in line: {error}"], ())
            return
        if drift:
            self._metrics.repaired.inc(report.changed)
            self._drift.add(map(str, report.changes))
        elif report.changed:
            self._metrics.changed.inc(report.changed)
            pairs = {"entries": report.changed, "peers": len(self.peers)}
            _log.info("programmed", extra=pairs)
        # A peer that publishes nonsense is a problem, but no reason for all nodes to be unready.
        of_peers = set(desired.problems)
        blocking = [text for text in (*hindrances, *report.problems) if text not in of_peers]
        self._conclude(
            [*blocking, *_alone(desired, self.peers)], (*desired.problems, *report.warnings)
        )

    def _forwarding(self, node: Node) -> Forwarding | None:
        if not isinstance(self._backend, Forwards):
            return None
        return self._backend.forwarding(node.lease, self.peers, node.external)

    def _plan(self, node: Node, leases: Mapping[str, Lease]) -> Desired:
        self.peers = tuple(lease for key, lease in leases.items() if key != node.lease.key)
        return target.plan(
            self._backend,
            node.lease,
            self.peers,
            node.external,
            node.identity,
            blackhole=self._blackhole,
            earlier=self._earlier,
        )

    def _conclude(self, blocking: Iterable[str], others: Iterable[str]) -> None:
        self._metrics.peers.set(len(self.peers))
        self._readiness.report("peers", blocking, others)
        self._passed()


def _alone(desired: Desired, peers: Sequence[Lease]) -> Iterator[str]:
    """Say that no peer at all can be reached as it publishes: then this node is the odd one.

    One peer alone may be the odd one itself.
    """
    reached = any(not route.blackhole for route in desired.routes)
    if len(peers) > 1 and not reached and len(desired.problems) >= len(peers):
        first, *_ = desired.problems
        yield (
            f"none of {len(peers)} other nodes is reached by what it publishes ({first}; ...): is"
            " this node's configuration that of the others?"
        )


def _say_drift(changes: Mapping[str, int], seconds: float) -> None:
    again = f" again and again in {seconds:.0f} s: another program undoes it" if seconds else ""
    _log.info("drift repaired%s: %s", again, listed(changes))

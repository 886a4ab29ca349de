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
from flanneld.forward.keeper import Keeper
from flanneld.kernel import forwarding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flanneld.backend.base import Backend
    from flanneld.desired import AnyNetwork, Desired
    from flanneld.forward.forwarding import Forwarding
    from flanneld.kernel.reconciler import Reconciler
    from flanneld.lease import Lease
    from flanneld.metrics import Metrics
    from flanneld.node import Node

_log = logging.getLogger(__name__)

_REST = 4  # after a pass, so many times its length belongs to others: storms cost a fifth of a core
_LONGEST_REST_S = 1.0


class DataPlane:
    """The loop and its last outcome: ``ready``, ``problems``, ``peers``.

    ``earlier`` are the networks of this node's earlier run: what is left of them is stale.
    """

    def __init__(
        self,
        backend: Backend,
        reconciler: Reconciler,
        metrics: Metrics,
        *,
        blackhole: bool,
        earlier: Iterable[AnyNetwork],
        passed: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._reconciler = reconciler
        self._metrics = metrics
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
        self.problems: tuple[str, ...] = ()
        self.ready = False
        self._warned: frozenset[str] = frozenset()

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
            _log.error("the kernel was not brought in line: %s", error)
            self._conclude((str(error),), complete=False)
            return
        if report.changed:
            (self._metrics.repaired if drift else self._metrics.changed).inc(report.changed)
            _log.info(
                "drift repaired" if drift else "programmed",
                extra={"entries": report.changed, "peers": len(self.peers)},
            )
        self._warn({*report.warnings, *forwarding.warnings(node.versions)})
        # A peer that publishes nonsense is a problem, but no reason for all nodes to be unready.
        problems = (*hindrances, *report.problems)
        self._conclude(problems, complete=not set(problems) - set(desired.problems))

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

    def _warn(self, warnings: set[str]) -> None:
        """Log each once, and again when it comes back."""
        for warning in sorted(warnings - self._warned):
            _log.warning("%s", warning)
        self._warned = frozenset(warnings)

    def _conclude(self, problems: tuple[str, ...], *, complete: bool) -> None:
        for problem in sorted(set(problems) - set(self.problems)):
            _log.warning("problem: %s", problem)
        for problem in sorted(set(self.problems) - set(problems)):
            _log.info("solved: %s", problem)
        self.problems = problems
        self.ready = complete
        self._metrics.peers.set(len(self.peers))
        self._metrics.problems.set(len(problems))
        self._passed()

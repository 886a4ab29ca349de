"""The node's traffic rules, as the flags and the lease want them: looked at every few seconds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from flanneld.digest import Digest
from flanneld.rules import bridge_netfilter
from flanneld.rules.manager import Rules
from flanneld.rules.programs import RulesError, system
from flanneld.rules.texts import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.config import NetConf
    from flanneld.desired import AnyNetwork
    from flanneld.lease import Lease
    from flanneld.metrics import Metrics
    from flanneld.node import Node
    from flanneld.readiness import Readiness
    from flanneld.state import Settings

_log = logging.getLogger(__name__)


def traffic(conf: NetConf, lease: Lease, settings: Settings) -> list[Traffic]:
    """Say what is done with the packets of each family of the network."""
    pairs = [(conf.network, lease.subnet), (conf.network6, lease.subnet6)]
    return [
        Traffic(
            network=network,
            subnet=subnet,
            masquerade=settings.ip_masq,
            forward=settings.forward_rules,
            fully_random=settings.fully_random,
        )
        for network, subnet in pairs
        if network is not None and subnet is not None
    ]


class TrafficKeeper:
    """Keeps the rules, and reports what it cannot put right.

    ``previous`` are the networks of this node's earlier run.
    """

    def __init__(
        self,
        settings: Settings,
        previous: Iterable[AnyNetwork],
        metrics: Metrics,
        readiness: Readiness,
    ) -> None:
        self._settings = settings
        self._previous = tuple(previous)
        self._metrics = metrics
        self._readiness = readiness
        self._repairs = Digest(_say)
        self._programs = system(self._waits)
        self._lease: Lease | None = None
        self._rules: Rules | None = None
        self._warnings: list[str] = []
        self._looked = asyncio.Event()

    async def looked(self, patience_s: float) -> bool:
        """Wait until the rules have been looked at; whether they were in that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._looked.wait()
        return self._looked.is_set()

    async def keep(self, node: Node) -> None:
        """Compare the rules with what they should be, and repair them as a whole."""
        first = self._rules is None
        try:
            repaired = await (await self._wanted(node)).ensure()
        except RulesError as error:
            self._looked.set()
            self._readiness.report("rules", [str(error)], self._warnings)
            return
        self._looked.set()
        self._readiness.report("rules", (), self._warnings)
        if repaired and not first:
            self._metrics.rules.inc()
        self._repairs.add(repaired)

    async def _wanted(self, node: Node) -> Rules:
        """Give the rules of this lease; they are made anew when it is another one."""
        if self._rules is None or self._lease is None or self._lease.key != node.lease.key:
            if self._rules is None and not node.conf.nftables:
                await self._look_at_bridges(node)
            self._lease = node.lease
            self._rules = Rules(
                traffic(node.conf, node.lease, self._settings),
                nftables=node.conf.nftables,
                previous=self._previous,
                programs=self._programs,
            )
        return self._rules

    async def _look_at_bridges(self, node: Node) -> None:
        self._warnings = await bridge_netfilter.ensure(node.versions, self._programs)

    def _waits(self, what: str) -> None:
        self._readiness.report("rules", [f"the traffic rules are not right yet: {what}"])


def _say(faults: Mapping[str, int], seconds: float) -> None:
    for fault, times in faults.items():
        often = f" ({times} times in {seconds:.0f} s: another program undoes it)" if seconds else ""
        _log.info("rules written: %s%s", fault, often)

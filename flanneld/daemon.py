"""One run of the daemon: lease, subnet.env, then the loops until a signal or the lease's loss.

The store, the kernel and the rules each have a loop of their own; what they have in common is the
``Node``.  Knows no store and no backend by name.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld import agreement, beside, files, joining, node, state, subnet_env
from flanneld.backend.registry import backend_for
from flanneld.config import ConfigError, blamed
from flanneld.conflist import Conflist
from flanneld.dataplane import DataPlane
from flanneld.examiner import Examiner
from flanneld.external import ExternalError
from flanneld.flags import UsageError
from flanneld.kernel.events import Events
from flanneld.kernel.reconciler import Reconciler
from flanneld.metrics import Metrics
from flanneld.pace import delays, every, patiently, pause
from flanneld.subnet.manager import Announces, StoreError
from flanneld.telling import Telling
from flanneld.traffic import TrafficKeeper

if TYPE_CHECKING:
    import socket
    from io import BufferedWriter

    from flanneld.backend.base import Backend, External
    from flanneld.lease import Lease
    from flanneld.node import Node
    from flanneld.options import Options
    from flanneld.subnet.manager import Manager

_log = logging.getLogger(__name__)

TICK_S = 30.0  # events come first: this is for what none of them has told
_EXAMINE_S = 5.0
_CONF_S = 30.0
_RULES_FIRST_S = 2.0  # so long the first pods wait for the traffic rules; others may hold the lock


class Daemon:
    """A run with these flags on this store."""

    def __init__(self, options: Options, manager: Manager) -> None:
        self._options = options
        self._manager = manager
        self._metrics = Metrics()
        self._settings = state.settings(options)
        self._reconciler = Reconciler()
        self._previous = subnet_env.previous(options.subnet_file)
        self._node: Node
        self._backend: Backend
        self._plane: DataPlane | None = None
        self._rules: TrafficKeeper
        self._examiner: Examiner
        self._events: Events
        self._names: list[socket.socket] = []
        self._telling = Telling(options, self._metrics)
        self._readiness = self._telling.readiness
        self._conflist = Conflist(options, self._readiness)

    async def run(self) -> None:
        """Go on until cancelled.

        Locked, Revoked, Exhausted, ConfigError, ExternalError or OSError end it.
        """
        with self._alone():
            await self._telling.serve()
            await self._serve_network()

    async def _serve_network(self) -> None:
        conf = await patiently("the network's configuration", self._manager.config, self._failed)
        with blamed(self._manager.source):
            self._backend = backend_for(conf)
        self._names = beside.hold(net for net in (conf.network, conf.network6) if net is not None)
        self._node = await joining.join(
            self._options,
            conf,
            self._backend,
            self._manager,
            reconciler=self._reconciler,
            failed=self._failed,
            waiting=self._waiting,
        )
        self._readiness.report("lease")
        self._readiness.report("store")
        self._rules = TrafficKeeper(
            self._settings, self._previous.networks, self._metrics, self._readiness
        )
        self._plane = DataPlane(
            self._backend,
            self._reconciler,
            self._metrics,
            self._readiness,
            blackhole=self._options.ip_blackhole_route,
            earlier=self._previous.networks,
            passed=self._passed,
        )
        self._examiner = Examiner(self._backend, self._readiness)
        self._plane.settle(self._node)
        await self._work(self._plane)

    async def _work(self, plane: DataPlane) -> None:
        stirred = asyncio.Event()

        def changed() -> None:
            stirred.set()
            plane.touch()

        async def tick() -> None:
            plane.touch()

        async def examine() -> None:
            if plane.desired is not None:
                await self._examiner.look(self._node, plane.peers, plane.desired)

        self._events = Events(changed)
        self._events.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hold(), name="lease")
                tasks.create_task(self._follow(plane), name="leases")
                tasks.create_task(plane.run(), name="data plane")
                tasks.create_task(
                    every(self._options.iptables_resync, self._keep_rules), name="rules"
                )
                await self._rules.looked(_RULES_FIRST_S)  # before the first pod can want them
                self._settle(self._node)
                tasks.create_task(every(TICK_S, self._look, stirred), name="node")
                tasks.create_task(every(TICK_S, tick), name="tick")
                tasks.create_task(every(_EXAMINE_S, examine), name="way")
                tasks.create_task(every(_CONF_S, self._compare_conf), name="configuration")
                tasks.create_task(every(TICK_S, self._look_beside), name="others")
        finally:
            self._events.close()
            await plane.close()

    # ------------------------------------------------------------------------------------- loops

    async def _hold(self) -> None:
        """Keep the lease; Revoked when it is lost."""
        while True:
            await self._manager.hold(self._node.lease, self._renewed)

    def _renewed(self, lease: Lease) -> None:
        held = replace(
            self._node.lease, subnet=lease.subnet, subnet6=lease.subnet6, expires=lease.expires
        )
        self._node = replace(self._node, lease=held)
        self._settle(self._node)

    async def _follow(self, plane: DataPlane) -> None:
        """Pass each snapshot of the leases on; a watch that fails is begun again.

        One without this node's lease is the end, or a store that has lost its data: no reason to
        take the paths away.
        """
        waits = delays()
        while True:
            try:
                async with aclosing(self._manager.watch()) as snapshots:
                    async for seen in snapshots:
                        self._metrics.leases.set(len(seen.leases))
                        self._readiness.report("store")
                        self._readiness.report("keys", (), seen.faults.values())
                        if self._node.lease.key in seen.leases:
                            plane.follow(seen.leases)
                        waits = delays()
            except StoreError as error:
                self._metrics.store_errors.inc()
                self._readiness.report(
                    "store", (), [f"what other nodes change is not seen at present: {error}"]
                )
                await asyncio.sleep(pause(error, next(waits)))

    async def _look(self) -> None:
        """See whether the node itself has changed: address, MTU, interface."""
        peers = self._plane.peers if self._plane is not None else ()
        try:
            external = node.look(self._options, self._node.conf, self._node.known(peers))
        except (ExternalError, OSError) as error:
            self._readiness.report("node", [f"the external interface is away: {error}"])
            external = self._node.external
        else:
            self._readiness.report("node")
        if external != self._node.external:
            await self._move(external)
        self._settle(self._node)

    async def _look_beside(self) -> None:
        """See whether another daemon is here that may be of this network."""
        found = await asyncio.to_thread(beside.warnings)
        self._readiness.report("daemons", (), found)

    async def _move(self, external: External) -> None:
        """Tell the others where this node is now; tried again at the next tick if that fails."""
        lease = self._node.lease
        try:
            attributes = self._backend.attributes(external, self._node.identity)
            self._backend.mtu(external)
            if attributes != lease.attributes:
                lease = await self._manager.publish(lease, attributes)
        except StoreError as error:
            self._metrics.store_errors.inc()
            self._readiness.report("node", [f"the node's change is not published yet: {error}"])
            return
        except ConfigError as error:
            self._readiness.report("node", [f"the node cannot take part as it is now: {error}"])
            return
        if node.described(external) != node.described(self._node.external):
            _log.info("external interface changed", extra=node.described(external))
        self._node = replace(self._node, external=external, lease=lease)

    async def _keep_rules(self) -> None:
        await self._rules.keep(self._node)
        self._passed()

    async def _compare_conf(self) -> None:
        """See whether nodes that start now agree with this one."""
        source, conf = self._manager.source, self._node.conf
        blocking, others = [], []
        try:
            new = await self._manager.config()
            with blamed(source):
                broken, changed = agreement.broken(conf, new), agreement.changed(conf, new)
        except StoreError as error:  # a store that is silent breaks no watch
            others.append(f"what other nodes change is not seen at present: {error}")
        except (ConfigError, UsageError) as error:
            others.append(f"no node could start now: {error}")
        else:
            since = f"the network's configuration, {source}, has changed since this daemon started"
            if broken:
                blocking.append(
                    f"{since}: {'; '.join(broken)}. Nodes that have started since and this one do"
                    " not reach each other: restart flanneld on every node"
                )
            if changed:
                others.append(f"{since}: {'; '.join(changed)}. It counts from the next start on")
        self._readiness.report("conf", blocking, others)

    # ----------------------------------------------------------------------------------- outcome

    def _settle(self, decided: Node) -> None:
        """Write subnet.env as the node is now, and let the data plane know."""
        text = subnet_env.render(
            decided.conf,
            decided.lease,
            self._backend.mtu(decided.external),
            ip_masq=self._options.ip_masq,
        )
        try:
            if subnet_env.write(self._options.subnet_file, text):
                _log.info("written", extra={"file": self._options.subnet_file})
            self._readiness.report("files")
        except OSError as error:
            self._readiness.report(
                "files", [f"{self._options.subnet_file} cannot be written: {error}"]
            )
        self._readiness.report("record", (), joining.remember(self._options, decided))
        self._metrics.expires.set(decided.lease.expires or 0)
        if self._plane is not None:
            self._plane.settle(decided)

    def _passed(self) -> None:
        """Tell what the last pass has come to."""
        if self._plane is not None:
            self._events.watch(self._reconciler.watched)
            self._telling.about(self._node, self._plane.peers)
        self._conflist.keep()
        if self._readiness.ready and isinstance(self._manager, Announces):
            self._manager.announce()

    # ---------------------------------------------------------------------------------- small parts

    def _alone(self) -> BufferedWriter:
        """Be the only daemon with this subnet.env; Locked if there is one."""
        file = self._options.subnet_file
        try:
            return files.lock(state.lock_path(file))
        except files.Locked as error:
            raise files.Locked(
                f"another flanneld writes {file} ({error}): stop it, or give this one another"
                " --subnet-file"
            ) from None
        except OSError as error:
            raise OSError(error.errno, f"making {file}: {error}: see --subnet-file") from None

    def _waiting(self, what: str) -> None:
        self._readiness.report("node", [what] if what else ())

    def _failed(self, what: str) -> None:
        self._metrics.store_errors.inc()
        self._readiness.report("store", [what])

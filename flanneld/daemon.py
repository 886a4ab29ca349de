"""One run of the daemon: lease, subnet.env, then the loops until a signal or the lease's loss.

The store, the kernel and the rules each have a loop of their own; what they have in common is the
``Node``.  Knows no store and no backend by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld import files, health, joining, node, state, subnet_env
from flanneld.backend.registry import backend_for
from flanneld.config import ConfigError
from flanneld.dataplane import DataPlane
from flanneld.external import ExternalError
from flanneld.kernel.events import Events
from flanneld.kernel.reconciler import Reconciler
from flanneld.metrics import Metrics
from flanneld.notify import notify
from flanneld.pace import delays, every, patiently
from flanneld.program import own_version
from flanneld.subnet.manager import StoreError
from flanneld.traffic import TrafficKeeper

if TYPE_CHECKING:
    from io import BufferedWriter

    from flanneld.backend.base import Backend, External
    from flanneld.lease import Lease
    from flanneld.node import Node
    from flanneld.options import Options
    from flanneld.subnet.manager import Manager

_log = logging.getLogger(__name__)

TICK_S = 30.0  # events come first: this is for what none of them has told


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
        self._env_problem = ""
        self._was_ready = False
        self._saved: object = None
        self._server: asyncio.Server | None = None

    async def run(self) -> None:
        """Go on until cancelled.

        Locked, Revoked, Exhausted, ConfigError, ExternalError or OSError end it.
        """
        with self._alone():
            if self._options.healthz_port:
                await self._serve()
            await self._serve_network()

    async def _serve_network(self) -> None:
        conf = await patiently("the network's configuration", self._manager.config, self._failed)
        self._backend = backend_for(conf)
        self._node = await joining.join(
            self._options,
            conf,
            self._backend,
            self._manager,
            reconciler=self._reconciler,
            failed=self._failed,
        )
        self._rules = TrafficKeeper(self._settings, self._previous.networks, self._metrics)
        self._plane = DataPlane(
            self._backend,
            self._reconciler,
            self._metrics,
            blackhole=self._options.ip_blackhole_route,
            earlier=self._previous.networks,
            passed=self._passed,
        )
        await self._rules.keep(self._node)  # before the first pod can want them
        self._settle(self._node)
        await self._work(self._plane)

    async def _work(self, plane: DataPlane) -> None:
        stirred = asyncio.Event()

        def changed() -> None:
            stirred.set()
            plane.touch()

        async def tick() -> None:
            plane.touch()

        events = Events(changed, lambda: self._reconciler.watched)
        events.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hold(), name="lease")
                tasks.create_task(self._follow(plane), name="leases")
                tasks.create_task(plane.run(), name="data plane")
                tasks.create_task(every(TICK_S, self._look, stirred), name="node")
                tasks.create_task(every(TICK_S, tick), name="tick")
                tasks.create_task(
                    every(self._options.iptables_resync, self._keep_rules), name="rules"
                )
        finally:
            events.close()
            await plane.close()

    # ------------------------------------------------------------------------------------- loops

    async def _hold(self) -> None:
        """Keep the lease; Revoked when it is lost."""
        while True:
            await self._manager.hold(self._node.lease, self._renewed)

    def _renewed(self, lease: Lease) -> None:
        self._node = replace(self._node, lease=replace(self._node.lease, expires=lease.expires))
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
                    async for leases in snapshots:
                        self._metrics.leases.set(len(leases))
                        if self._node.lease.key in leases:
                            plane.follow(leases)
                        waits = delays()
            except StoreError as error:
                self._failed()
                _log.warning("the leases are not watched at present: %s", error)
            await asyncio.sleep(next(waits))

    async def _look(self) -> None:
        """See whether the node itself has changed: address, MTU, interface."""
        try:
            external = node.look(self._options, self._node.conf)
        except (ExternalError, OSError) as error:
            _log.warning("the external interface is away: %s", error)
            external = self._node.external
        if external != self._node.external:
            await self._move(external)
        self._settle(self._node)

    async def _move(self, external: External) -> None:
        """Tell the others where this node is now; tried again at the next tick if that fails."""
        lease = self._node.lease
        try:
            attributes = self._backend.attributes(external, self._node.identity)
            self._backend.mtu(external)
            if attributes != lease.attributes:
                lease = await self._manager.publish(lease, attributes)
        except StoreError as error:
            self._failed()
            _log.warning("the node's change is not published yet: %s", error)
            return
        except ConfigError as error:
            _log.error("the node cannot take part as it is now: %s", error)
            return
        _log.info("external interface changed", extra=node.described(external))
        self._node = replace(self._node, external=external, lease=lease)

    async def _keep_rules(self) -> None:
        await self._rules.keep(self._node)
        self._passed()

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
            self._env_problem = ""
        except OSError as error:
            self._env_problem = f"{self._options.subnet_file} cannot be written: {error}"
            _log.error("problem: %s", self._env_problem)
        self._metrics.expires.set(decided.lease.expires or 0)
        if self._plane is not None:
            self._plane.settle(decided)

    @property
    def _problems(self) -> tuple[str, ...]:
        plane = self._plane.problems if self._plane else ()
        env = (self._env_problem,) if self._env_problem else ()
        return (*plane, *self._rules.problems, *env)

    @property
    def _ready(self) -> bool:
        """Whether all known peers are programmed, the rules right, and subnet.env in place."""
        return bool(
            self._plane is not None
            and self._plane.ready
            and self._rules.ready
            and not self._env_problem
        )

    def _passed(self) -> None:
        """Tell everybody what the last pass has come to."""
        if self._plane is None:
            return
        ready = self._ready
        self._metrics.ready.set(ready)
        if ready != self._was_ready:
            _log.info("ready" if ready else "not ready", extra={"peers": len(self._plane.peers)})
            if ready:
                notify("READY=1")
        notify(
            f"STATUS={self._node.lease.key}, {len(self._plane.peers)} peers, "
            f"{'ready' if ready else 'not ready'}, {len(self._problems)} problems"
        )
        self._was_ready = ready
        self._save(self._plane)

    def _save(self, plane: DataPlane) -> None:
        """Write what the commands read, if it has changed."""
        told = (self._node, plane.peers, self._ready, self._problems)
        if told == self._saved:
            return
        self._saved = told
        try:
            state.save(
                state.State(
                    pid=os.getpid(),
                    version=own_version(),
                    written=time.time(),
                    conf=self._node.conf,
                    settings=self._settings,
                    external=self._node.external,
                    identity=self._node.identity,
                    lease=self._node.lease,
                    peers=plane.peers,
                    ready=self._ready,
                    problems=self._problems,
                )
            )
        except OSError as error:
            _log.warning("the commands will see an old state: %s", error)

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

    async def _serve(self) -> None:
        address, port = str(self._options.healthz_ip), self._options.healthz_port
        self._server = await health.serve(
            address, port, health.pages(lambda: self._ready, self._metrics.text)
        )
        _log.info("serving /healthz, /readyz, /metrics", extra={"address": address, "port": port})

    def _failed(self) -> None:
        self._metrics.store_errors.inc()

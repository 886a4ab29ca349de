"""The store of leases that is Kubernetes.

A node's subnets are its podCIDRs, and what it publishes are annotations of its Node, as the Go
daemon has them (pkg/subnet/kube).  Apart from it: what is missing is waited for; the Node is
followed when others change it, or make it anew; and the daemon starts from what it was told last,
if the API server is away.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld import record
from flanneld.flags import UsageError
from flanneld.http.client import Client
from flanneld.pace import delays, pause
from flanneld.subnet.keys import BadLease
from flanneld.subnet.kube import bodies, netconf, nodes
from flanneld.subnet.kube.access import access, elsewhere
from flanneld.subnet.kube.api import Api
from flanneld.subnet.kube.reader import Reader
from flanneld.subnet.manager import Snapshot, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from flanneld.claim import Claim
    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease
    from flanneld.options import Options

_log = logging.getLogger(__name__)

_ANSWER_S = 1.0  # so long the first answer is waited for, if there is something to start from
_WAIT_S = 10.0  # for a podCIDR, at a time
_TELL_S = 300.0  # between two Events that say the same
_KEEP_S = 10.0  # between two looks at whether there is something to keep
_SERVERS_S = 300.0  # between two looks at where the API servers are
_FEW, _LISTS_A_SECOND, _LONGEST_TURN_S = 200, 200, 3.0  # nodes that may all read at once; then
_WRITE_S, _LONGEST_S = 0.5, 60.0  # between two writes that another one undoes


class Kube:
    """``manager.Manager`` on the Nodes of a cluster; UsageError, ConfigError."""

    def __init__(self, options: Options, environ: Mapping[str, str]) -> None:
        where = access(options, environ)
        self.source = options.net_config_path
        self._conf = netconf.read(self.source)
        self._server = where.server
        self._client = Client([where.server], where.credentials, proxy=where.proxy)
        # With this backend others make the routes, and other nodes do not count.
        self._api = Api(self._client, alone=self._conf.backend_type == "alloc")
        self._pod = environ.get("POD_NAMESPACE", ""), environ.get("POD_NAME", "")
        self._prefix = nodes.prefix(options.kube_annotation_prefix)
        self._place = record.path(options.data_dir, options.subnet_file, "kube")
        self._reader = self._read_as(environ.get("NODE_NAME", ""))
        if not self._reader.name and not all(self._pod):
            raise UsageError(
                "which Node is this? Set NODE_NAME, or POD_NAME and POD_NAMESPACE, in the"
                " environment"
            )
        self._clears = options.set_node_network_unavailable
        self._works = False
        self._cleared = ""  # uid of the Node whose condition this run has set
        self._held: Lease | None = None
        self._told: dict[str, float] = {}
        self._writing = asyncio.Lock()

    async def config(self) -> NetConf:
        """Read the configuration as it is mounted now."""
        return netconf.read(self.source)

    async def leases(self) -> Snapshot:
        """Read all Nodes; if the API server is away, what it has told last."""
        if not self._reader.name:
            self._reader = self._read_as(await self._api.node_of(*self._pod))
        last = None if self._reader.known else self._reader.load()
        self._reach()
        try:
            async with asyncio.timeout(_ANSWER_S if last else None):
                await self._reader.find()
            await asyncio.sleep(random.uniform(0.0, turn_s(len(last.nodes) if last else 0)))  # noqa: S311 - no secret
            await self._reader.read()
        except (StoreError, TimeoutError) as error:
            if last is None:
                raise
            self._reader.restore(last, str(error) or "it does not answer")
        return self._with_own()

    async def acquire(self, claim: Claim) -> Lease:
        """Take the podCIDRs of this node's Node, as soon as it has them, and publish."""
        if self._reader.known:
            await self._reader.find()
        try:
            lease = self._own_lease(claim.attributes)
        except BadLease as error:
            raise await self._patience(str(error)) from None
        self._hold(lease)
        if self._reader.known:
            async with self._writing:
                await self._publish()
        return lease

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Write this node's annotations anew."""
        lease = replace(lease, attributes=attributes)
        async with self._writing:
            self._hold(lease)
            if not self._reader.known:
                raise StoreError("the API server has not answered yet")
            await self._publish()
        return lease

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Keep the Node as it is to be, whoever changes it, for ever."""
        del lease  # it is held
        waits, last, looked = delays(_WRITE_S, _LONGEST_S), 0.0, -_SERVERS_S
        while True:
            await self._stirred_within(_KEEP_S)
            if self._reader.known and time.monotonic() - looked > _SERVERS_S:
                looked = time.monotonic()
                await self._look_for_servers()
            self._reader.save()
            try:
                async with self._writing:
                    wrote = await self._settle(renewed)
            except StoreError as error:
                _log.warning("this node's Node is not as it is to be yet: %s", error)
                await asyncio.sleep(pause(error, next(waits)))
                self._reader.stirred.set()
                continue
            now = time.monotonic()
            if wrote:
                waits = delays(_WRITE_S, _LONGEST_S) if now - last > _LONGEST_S else waits
                last = now
                await asyncio.sleep(next(waits))

    async def watch(self) -> AsyncGenerator[Snapshot, None]:
        """Give all leases now, and again after each change; the snapshot is live."""
        async with aclosing(self._reader.follow()) as changes:
            async for _ in changes:
                yield self._snapshot()

    def announce(self) -> None:
        """Have the condition NetworkUnavailable be False from now on."""
        if not self._works:
            self._works = True
            self._reader.stirred.set()

    async def close(self) -> None:
        """Close the connections; the Node stays as it is."""
        self._client.close()
        await asyncio.sleep(0)  # what is closed is so in the next turn of the loop

    # ------------------------------------------------------------------------------ what is known

    def _read_as(self, name: str) -> Reader:
        return Reader(self._api, self._conf, name, self._prefix, self._place)

    async def _look_for_servers(self) -> None:
        """Learn the API servers' own addresses, which need neither kube-proxy nor DNS."""
        try:
            found = await self._api.servers()
        except StoreError as error:
            _log.debug("the addresses of the API servers are not known: %s", error)
        else:
            self._reader.learn(found)
            self._reach()

    def _reach(self) -> None:
        """Let the client go to the API servers' own addresses, if the one it was given is away."""
        known = (self._server.host, self._server.port)
        others = [one for one in self._reader.servers if one != known]
        self._client.places = [self._server, *elsewhere(self._server, others)]

    def _snapshot(self) -> Snapshot:
        return Snapshot(self._reader.mirror.leases, self._reader.mirror.faults)

    def _with_own(self) -> Snapshot:
        """Give the snapshot, and with it what this node's Node says of an earlier run."""
        snapshot, own = self._snapshot(), self._reader.mirror.own
        if own is None:
            return replace(snapshot, own="")
        with suppress(BadLease):
            snapshot = replace(snapshot, asked=nodes.asked(own))
        lease = None
        with suppress(BadLease):
            lease = nodes.lease(own, self._conf)
        if lease is None:
            return replace(snapshot, own="")
        return replace(snapshot, leases={**snapshot.leases, lease.key: lease}, own=lease.key)

    def _own_lease(self, attributes: Attributes) -> Lease:
        own = self._reader.mirror.own
        if own is None:
            name = self._reader.name
            raise BadLease(
                f"there is no Node called {name}: kubelet makes it; or is NODE_NAME another?"
            )
        return nodes.own(own, self._conf, attributes)

    async def _stirred_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._reader.stirred.wait()
        self._reader.stirred.clear()

    # ------------------------------------------------------------------------------------ writing

    def _hold(self, lease: Lease) -> None:
        self._held = lease
        self._reader.mirror.hold(lease)

    async def _settle(self, renewed: Callable[[Lease], None]) -> bool:
        """Bring the Node in line, and follow its podCIDRs; whether something was written."""
        held = self._held
        if held is None or not self._reader.known:
            return False
        try:
            lease = self._own_lease(held.attributes)
        except BadLease:  # the mirror says so
            return False
        if lease.key != held.key:
            _log.warning("this node has other podCIDRs now", extra={"lease": lease.key})
            self._hold(lease)
            renewed(lease)
        wrote = await self._publish()
        return await self._clear() or wrote

    async def _publish(self) -> bool:
        """Write the annotations that are not as they are to be; whether there were any."""
        own, held = self._reader.mirror.own, self._held
        if own is None or held is None:
            return False
        changes = nodes.changes(nodes.wanted(held.attributes, own), own)
        if changes:
            body = bodies.annotate(own.uid, self._prefix, changes)
            self._reader.take(await self._api.patch(own.name, body))
            _log.info("annotations written", extra={"node": own.name, "names": [*changes]})
        return bool(changes)

    async def _clear(self) -> bool:
        """Set the condition, once for each Node; one that another sets to True later stays."""
        own, (status, reason) = self._reader.mirror.own, self._reader.condition
        if own is None or status == "False" or not (self._works and self._clears):
            return False
        if self._cleared == own.uid and reason not in ("", bodies.REASON):
            return False
        self._reader.take(await self._api.patch(own.name, bodies.condition(own.uid, time.time())))
        self._cleared = own.uid
        _log.info("the condition NetworkUnavailable is False", extra={"node": own.name})
        return True

    async def _patience(self, text: str) -> StoreError:
        """Give the error for what is missing; the same one only after it could have changed."""
        if text in self._told:
            await self._reader.own_change(_WAIT_S)
        now = time.monotonic()
        if now - self._told.get(text, -_TELL_S) >= _TELL_S:
            self._told[text] = now
            own, name = self._reader.mirror.own, self._reader.name
            event = bodies.waiting(name, own.uid if own else "", text, time.time())
            try:
                await self._api.tell(event)
            except StoreError as error:
                _log.info("no Event says so: %s", error)
        return StoreError(text, 0.5)


def turn_s(count: int) -> float:
    """Give the seconds over which a number of nodes that start together spread their lists."""
    return 0.0 if count <= _FEW else min(count / _LISTS_A_SECOND, _LONGEST_TURN_S)

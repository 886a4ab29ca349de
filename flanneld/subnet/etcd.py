"""The store of leases on etcd v3: keys, values and times as the Go daemon has them.

Apart from it: a lost race is begun again; a lease is renewed by keep-alive every hour, which wakes
nobody; a key without an etcd lease is a reservation and stays one; what cannot be read is skipped
and told; overlapping subnets under different keys are noticed by the later of the two nodes.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING

from flanneld import config
from flanneld.subnet import choice, endpoint, keys, records
from flanneld.subnet.client import Client
from flanneld.subnet.keyspace import TTL_S, Keyspace
from flanneld.subnet.manager import Revoked, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from etcd3aio._protobuf import WatchResponse

    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease
    from flanneld.options import Options
    from flanneld.subnet.records import Entry

_log = logging.getLogger(__name__)

RENEWAL_S = 3600.0  # so that an outage may last as long as a lease, nearly
_RETRY_S = 60.0
_ATTEMPTS = 100  # each lost to another node that did get its subnet


class Etcd:
    """``manager.Manager`` on etcd."""

    def __init__(self, options: Options) -> None:
        endpoints = [endpoint.parse(url) for url in options.etcd_endpoints]
        tls = endpoint.TLS(options.etcd_cafile, options.etcd_certfile, options.etcd_keyfile)
        if any((tls.cafile, tls.certfile)) and not all(one.secure for one in endpoints):
            _log.warning("connecting to etcd with http. This is insecure")
        self._client = Client(endpoints, tls, options.etcd_username, options.etcd_password)
        self._keys = Keyspace(self._client, options.etcd_prefix)
        self.source = f"key {self._keys.config_key} of etcd at {', '.join(map(str, endpoints))}"
        self._renewal_s = min(RENEWAL_S, TTL_S - 60.0 * options.subnet_lease_renew_margin)
        self._dice = Random()  # noqa: S311 - no secret
        self._held: Lease | None = None
        self._published: Attributes | None = None  # as the last publish() would have it
        self._lost = asyncio.Event()
        self._writing = asyncio.Lock()

    async def config(self) -> NetConf:
        """Read the configuration."""
        text = await self._keys.config()
        with config.blamed(self.source):
            return config.parse(text)

    async def own(self, attributes: Attributes) -> Lease | None:
        """Find the lease that names this node."""
        entries, _ = await self._keys.entries()
        own = records.own(entries, attributes)
        return own[0].lease if own else None

    async def acquire(self, attributes: Attributes, previous: Lease | None) -> Lease:
        """Lease a subnet; after a race lost to another node, choose again."""
        conf = await self.config()
        for _ in range(_ATTEMPTS):
            entries, _ = await self._keys.entries()
            lease = await self._attempt(conf, entries, attributes, previous)
            if lease is not None:
                self._held = lease
                self._lost.clear()
                return lease
        raise StoreError(f"{_ATTEMPTS} subnets in turn were taken by other nodes meanwhile")

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace the value of this node's key, under the etcd lease that it has."""
        async with self._writing:
            entry = await self._mine(lease)
            wanted = replace(entry.lease, attributes=attributes)
            self._published = attributes  # a write whose answer is lost may have been done
            if not await self._keys.replace(entry, wanted):
                raise StoreError(f"key {lease.key} changed while it was written")
            self._held = replace(wanted, expires=(self._held or lease).expires)
            return self._held

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Renew in time, and notice when the lease is gone; ends with Revoked."""
        if self._held is None or self._held.key != lease.key:
            self._held = lease
        pause = self._renewal_s
        while True:
            lost = await self._lost_within(pause)
            try:
                async with self._writing:  # what is being published is not yet what is held
                    if lost:
                        self._lost.clear()  # the next snapshot says it again, if etcd is away
                        await self._mine(self._held)
                    else:
                        self._held = await self._renewed(self._held)
                        renewed(self._held)
                        pause = self._renewal_s
            except StoreError as error:
                _log.warning("the lease is not renewed yet: %s", error, extra={"lease": lease.key})
                pause = _RETRY_S

    async def watch(self) -> AsyncGenerator[Mapping[str, Lease], None]:
        """Give all leases now, and again after each change; the mapping is live.

        StoreError when etcd is away: what was given then holds until the next call.
        """
        while True:
            entries, revision = await self._keys.entries()
            leases = {entry.lease.key: entry.lease for entry in entries}
            self._compare(leases)
            yield MappingProxyType(leases)
            async with aclosing(self._keys.watch(revision + 1)) as responses:
                async for response in responses:
                    if response.canceled:
                        _check_compacted(response)
                        break
                    if records.apply(response.events, leases):
                        self._compare(leases)
                        yield MappingProxyType(leases)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # ---------------------------------------------------------------------------------- acquiring

    async def _attempt(
        self,
        conf: NetConf,
        entries: list[Entry],
        attributes: Attributes,
        previous: Lease | None,
    ) -> Lease | None:
        """Try once to lease; None when another node was faster, or something was in the way."""
        own = records.own(entries, attributes)
        for entry in own:
            if choice.fits(entry.lease, conf):
                return await self._reuse(entry, attributes)
        for entry in own:
            if entry.lease_id:
                _log.info("the lease does not fit any more", extra={"lease": entry.lease.key})
                await self._keys.delete(entry.lease)
                return None
        leases = [entry.lease for entry in entries]
        lease = choice.reusable(previous, leases, conf) or choice.any_free(leases, conf, self._dice)
        return await self._create(replace(lease, attributes=attributes), conf)

    async def _reuse(self, entry: Entry, attributes: Attributes) -> Lease | None:
        """Take this node's key again: unchanged if it can be, else with what is true now."""
        wanted = replace(entry.lease, attributes=attributes, expires=None)
        same = keys.value(entry.lease.attributes) == keys.value(attributes)
        if not entry.lease_id:
            kept = same or await self._keys.replace(entry, wanted)
            return wanted if kept else None
        expires = await self._keys.keep_alive(entry) if same else None
        if expires is not None:
            return replace(wanted, expires=expires)
        return await self._keys.lease_anew(entry, wanted)

    async def _create(self, lease: Lease, conf: NetConf) -> Lease | None:
        """Make a key that is not there yet; None if it is, or an older one overlaps it."""
        created = await self._keys.create(lease)
        if created is None:
            return None
        made, others = created
        if choice.reusable(made, others, conf):
            return made
        await self._keys.delete(made)
        return None

    # -------------------------------------------------------------------------------------- holding

    async def _renewed(self, lease: Lease) -> Lease:
        """Renew the lease; gives it with its new end."""
        entry = await self._mine(lease)
        if not entry.lease_id:
            return replace(lease, expires=None)
        expires = await self._keys.keep_alive(entry)
        renewed = (
            replace(lease, expires=expires)
            if expires is not None
            else await self._keys.lease_anew(entry, lease)
        )
        if renewed is None:
            raise StoreError(f"key {lease.key} changed while it was renewed")
        _log.info("lease renewed", extra={"lease": lease.key})
        return renewed

    async def _lost_within(self, seconds: float) -> bool:
        """Wait for a snapshot without this node's lease; whether one came in that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            return False
        return True

    async def _mine(self, lease: Lease) -> Entry:
        """Read this node's key; Revoked if it is gone, or another node's."""
        entry = await self._keys.entry(lease)
        if entry is None:
            raise Revoked(f"lease {lease.key} has been revoked: etcd does not have it any more")
        if not self._is_own(entry.lease, lease):
            holder = entry.lease.attributes.public_ip or entry.lease.attributes.public_ip6
            raise Revoked(f"lease {lease.key} has been revoked: {holder} holds it")
        return entry

    def _is_own(self, found: Lease, held: Lease) -> bool:
        """Whether a lease as it was read is this node's."""
        said = (held.attributes, self._published)
        return any(one is not None and choice.is_own(found, one) for one in said)

    def _compare(self, leases: Mapping[str, Lease]) -> None:
        """Wake ``hold`` if this node's lease is not among them; tell if another node writes it."""
        if self._held is None:
            return
        found = leases.get(self._held.key)
        if found is None or not self._is_own(found, self._held):
            self._lost.set()
        elif found.attributes != self._held.attributes and not self._writing.locked():
            _log.warning(
                "another node publishes this node's address: give one of them another --public-ip",
                extra={"lease": found.key, "value": keys.value(found.attributes).decode()},
            )


def _check_compacted(response: WatchResponse) -> None:
    """Take the end of a watch whose revision is no more; StoreError for any other end."""
    if not response.compact_revision:
        raise StoreError(f"etcd refuses to watch: {response.cancel_reason}")
    _log.info("reading all leases again", extra={"compacted": response.compact_revision})

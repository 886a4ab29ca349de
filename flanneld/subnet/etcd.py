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
from typing import TYPE_CHECKING

from flanneld import config
from flanneld.subnet import choice, endpoint, holding, keys
from flanneld.subnet.client import Client
from flanneld.subnet.keyspace import TTL_S, Keyspace
from flanneld.subnet.manager import Revoked, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from etcd3aio._protobuf import WatchResponse

    from flanneld.claim import Claim
    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease
    from flanneld.options import Options
    from flanneld.subnet.manager import Snapshot
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
        self._sure = True  # that it is this node's, not only by its address
        self._lost = asyncio.Event()
        self._writing = asyncio.Lock()

    async def config(self) -> NetConf:
        """Read the configuration."""
        text = await self._keys.config()
        with config.blamed(self.source):
            return config.parse(text)

    async def leases(self) -> Snapshot:
        """Read all leases."""
        return (await self._keys.seen())[0].snapshot

    async def acquire(self, claim: Claim) -> Lease:
        """Lease a subnet; after a race lost to another node, choose again."""
        conf = await self.config()
        for _ in range(_ATTEMPTS):
            entries, _ = await self._keys.entries()
            lease = await self._attempt(conf, entries, claim)
            if lease is not None:
                self._held = lease
                self._lost.clear()
                return lease
        raise StoreError(f"{_ATTEMPTS} subnets in turn were taken by other nodes meanwhile")

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace the value of this node's key, under the etcd lease that it has."""
        async with self._writing:
            entry = await self._mine(lease)
            self._published = attributes
            self._held = await self._write(
                entry, replace(self._held or lease, attributes=attributes)
            )
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
                        await self._heal(self._held)
                    else:
                        self._held = await self._renewed(self._held)
                        renewed(self._held)
                        pause = self._renewal_s
            except StoreError as error:
                _log.warning("the lease is not renewed yet: %s", error, extra={"lease": lease.key})
                pause = _RETRY_S

    async def watch(self) -> AsyncGenerator[Snapshot, None]:
        """Give all leases now, and again after each change; the snapshot is live.

        All are read again when this node's is not among them any more.  StoreError when etcd is
        away: what was given then holds until the next call.
        """
        while True:
            seen, revision = await self._keys.seen()
            self._compare(seen.snapshot)
            yield seen.snapshot
            async with aclosing(self._keys.watch(revision + 1)) as responses:
                async for response in responses:
                    if response.canceled:
                        _check_compacted(response)
                        break
                    if seen.apply(response.events):
                        if not self._compare(seen.snapshot):
                            break
                        yield seen.snapshot

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # ---------------------------------------------------------------------------------- acquiring

    async def _attempt(self, conf: NetConf, entries: list[Entry], claim: Claim) -> Lease | None:
        """Try once to lease; None when another node was faster, or something was in the way."""
        by_key = {entry.key: entry for entry in entries if entry.lease is not None}
        taken = [entry.lease for entry in by_key.values() if entry.lease is not None]
        own = claim.own(entry.lease for entry in by_key.values() if entry.lease and not entry.fault)
        for lease in own:
            if choice.fits(lease, conf, claim.uplink):
                self._sure = claim.is_sure(lease)
                return await self._reuse(by_key[lease.key], lease, claim.attributes)
        self._sure = True
        for lease in own:
            if by_key[lease.key].lease_id:
                _log.info("the lease does not fit any more", extra={"lease": lease.key})
                await self._keys.delete(lease)
                return None
        for lease in taken:
            entry = by_key[lease.key]
            if entry.fault and claim.had(lease) and choice.fits(lease, conf, claim.uplink):
                _log.warning("taking back what had become unreadable: %s", entry.fault)
                wanted = replace(lease, attributes=claim.attributes)
                return await self._keys.lease_anew(entry, wanted)
        lease = choice.reusable(claim.previous, taken, conf, claim.uplink) or choice.any_free(
            taken, conf, self._dice, claim.avoid
        )
        return await self._create(replace(lease, attributes=claim.attributes), conf)

    async def _reuse(self, entry: Entry, lease: Lease, attributes: Attributes) -> Lease | None:
        """Take this node's key again: unchanged if it can be, else with what is true now."""
        wanted = replace(lease, attributes=attributes)
        same = keys.value(lease.attributes) == keys.value(attributes)
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

    async def _heal(self, lease: Lease) -> None:
        """See that this node's key is there, and write it anew if it is not right; Revoked."""
        entry = await self._mine(lease)
        if wrong := self._wrong(entry, lease):
            _log.warning("writing this node's lease anew: %s", wrong)
            self._held = await self._write(entry, lease)

    async def _write(self, entry: Entry, lease: Lease) -> Lease:
        """Write this node's key: under its etcd lease, or a new one if that was taken from it."""
        if entry.lease_id or lease.expires is None:
            written = lease if await self._keys.replace(entry, lease) else None
        else:
            written = await self._keys.lease_anew(entry, lease)
        if written is None:
            raise StoreError(f"key {lease.key} changed while it was written")
        return written

    async def _renewed(self, lease: Lease) -> Lease:
        """Renew the lease; gives it with its new end."""
        entry = await self._mine(lease)
        if self._wrong(entry, lease):
            return await self._write(entry, lease)
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
        """Read this node's key, which may have a fault; Revoked if it is gone, or another's.

        Two nodes with one address: who holds the key by that alone gives way to the one who was
        there before.
        """
        entry = await self._keys.entry(lease)
        if entry is None or entry.lease is None:
            raise Revoked(f"lease {lease.key} has been revoked: etcd does not have it any more")
        if entry.fault:
            return entry
        if not holding.is_own(entry.lease, self._said(lease)):
            holder = entry.lease.attributes.public_ip or entry.lease.attributes.public_ip6
            raise Revoked(f"lease {lease.key} has been revoked: {holder} holds it")
        usurper = holding.usurper(entry.lease, lease)
        if usurper and not self._sure:
            raise Revoked(f"lease {lease.key} has been revoked: {usurper}")
        return entry

    def _wrong(self, entry: Entry, held: Lease) -> str:
        """Say why this node's key is to be written anew; "" if it is right."""
        if entry.fault or entry.lease is None:
            return entry.fault
        altered = holding.altered(entry.lease, self._said(held)) if self._sure else ""
        return holding.usurper(entry.lease, held) or altered

    def _said(self, held: Lease) -> list[Attributes]:
        """What this node may have written; of a publish() the answer may have been lost."""
        return [one for one in (held.attributes, self._published) if one is not None]

    def _compare(self, seen: Snapshot) -> bool:
        """Wake ``hold`` unless this node's lease is as it should be; whether it is there at all.

        Tells if another node writes it.
        """
        held = self._held
        if held is None:
            return True
        found = seen.leases.get(held.key)
        if found is None or held.key in seen.faults:
            self._lost.set()
            return found is not None
        said = self._said(held)
        altered = "" if self._writing.locked() else holding.altered(found, said)
        if (
            not holding.is_own(found, said)
            or holding.usurper(found, held)
            or (altered and self._sure)
        ):
            self._lost.set()
        elif altered:
            _log.warning(
                "another node publishes this node's address: give one of them another --public-ip",
                extra={"lease": found.key, "value": keys.value(found.attributes).decode()},
            )
        return True


def _check_compacted(response: WatchResponse) -> None:
    """Take the end of a watch whose revision is no more; StoreError for any other end."""
    if not response.compact_revision:
        raise StoreError(f"etcd refuses to watch: {response.cancel_reason}")
    _log.info("reading all leases again", extra={"compacted": response.compact_revision})

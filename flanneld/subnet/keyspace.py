"""The network's keys in etcd: what can be asked of them, each in one call.

Decides nothing.  Every write is a transaction on what was read before, so that nothing that another
has written since is lost; every method may raise StoreError.
"""

from __future__ import annotations

import posixpath
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etcd3aio import prefix_range_end
from etcd3aio.kv import KVService

from flanneld.subnet import keys, records
from flanneld.subnet.client import TIMEOUT_S
from flanneld.subnet.manager import StoreError
from flanneld.subnet.records import Seen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from etcd3aio._protobuf import WatchResponse

    from flanneld.lease import Lease
    from flanneld.subnet.client import Client
    from flanneld.subnet.records import Entry

TTL_S = 86400


class Keyspace:
    """The keys below a prefix: ``config``, and ``subnets/`` with a key a lease."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self.config_key = posixpath.join(prefix, "config")
        self._subnets = posixpath.join(prefix, "subnets") + "/"
        self._end = prefix_range_end(self._subnets)

    async def config(self) -> str:
        """Read the network's configuration."""
        answer = await self._client.call(
            lambda etcd: etcd.kv.get(self.config_key, timeout=TIMEOUT_S)
        )
        if not answer.kvs:
            raise StoreError(
                f"etcd has no key {self.config_key}: put the network's configuration there,"
                " or name its folder with --etcd-prefix"
            )
        text: str = answer.kvs[0].value.decode(errors="replace")
        return text

    async def entries(self) -> tuple[list[Entry], int]:
        """Read all keys of leases, and the revision of that."""
        answer = await self._client.call(
            lambda etcd: etcd.kv.get(self._subnets, range_end=self._end, timeout=TIMEOUT_S)
        )
        return records.entries(answer.kvs, self._subnets), answer.header.revision

    async def seen(self) -> tuple[Seen, int]:
        """Read all keys of leases, to be kept by a watch's events, and the revision of that."""
        found, revision = await self.entries()
        return Seen(found, self._subnets), revision

    async def entry(self, lease: Lease) -> Entry | None:
        """Read a lease's key; None if it is gone."""
        key = self._subnets + lease.key
        answer = await self._client.call(lambda etcd: etcd.kv.get(key, timeout=TIMEOUT_S))
        found = records.entries(answer.kvs, self._subnets)
        return found[0] if found else None

    async def create(self, lease: Lease) -> tuple[Lease, list[Lease]] | None:
        """Make a key that is not there yet, under a new etcd lease; None if it is there.

        Gives the lease with its end, and all others as they were at that moment.
        """
        lease_id, expires = await self._grant()
        key = self._subnets + lease.key
        try:
            answer = await self._client.call(
                lambda etcd: etcd.kv.txn(
                    [KVService.txn_compare_version(key, 0)],
                    [
                        KVService.txn_op_put(key, keys.value(lease.attributes), lease=lease_id),
                        KVService.txn_op_get(self._subnets, range_end=self._end),
                    ],
                    timeout=TIMEOUT_S,
                )
            )
        except StoreError:
            await self._give_back(lease_id)
            raise
        if not answer.succeeded:
            await self._give_back(lease_id)
            return None
        found = records.entries(answer.responses[1].response_range.kvs, self._subnets)
        others = [one.lease for one in found if one.lease is not None and one.key != lease.key]
        return replace(lease, expires=expires), others

    async def replace(self, entry: Entry, lease: Lease) -> bool:
        """Write a key, under the etcd lease that it has; whether it was as it had been read."""
        put = self._put(entry, lease, entry.lease_id)
        return await self._if_unchanged(entry, put)

    async def lease_anew(self, entry: Entry, lease: Lease) -> Lease | None:
        """Write a key, under a new etcd lease; None if it was not as it had been read."""
        lease_id, expires = await self._grant()
        written = await self._if_unchanged(entry, self._put(entry, lease, lease_id))
        await self._give_back(entry.lease_id if written else lease_id)
        return replace(lease, expires=expires) if written else None

    async def keep_alive(self, entry: Entry) -> float | None:
        """Renew the etcd lease of a key; gives its end, or None: it is gone, or a short one."""
        ttl = await self._client.call(lambda etcd: etcd.keep_alive(entry.lease_id))
        return time.time() + ttl if ttl >= TTL_S / 2 else None

    async def delete(self, lease: Lease) -> None:
        """Delete a lease's key, and its etcd lease, if it still is this lease's."""
        entry = await self.entry(lease)
        if entry is None or entry.fault or entry.lease is None:
            return
        if entry.lease.attributes == lease.attributes and await self._if_unchanged(
            entry, KVService.txn_op_delete(self._subnets + entry.key)
        ):
            await self._give_back(entry.lease_id)

    async def watch(self, revision: int) -> AsyncGenerator[WatchResponse, None]:
        """Give etcd's answers about all leases' keys, from a revision on."""
        async with aclosing(self._client.watch(self._subnets, revision)) as responses:
            async for response in responses:
                yield response

    async def _grant(self) -> tuple[int, float]:
        """Make an etcd lease: its number, and the Unix time of its end."""
        answer = await self._client.call(lambda etcd: etcd.lease.grant(TTL_S, timeout=TIMEOUT_S))
        return answer.ID, time.time() + answer.TTL

    async def _give_back(self, lease_id: int) -> None:
        """End an etcd lease that no key needs; if that fails, it ends by itself."""
        if lease_id:
            with suppress(StoreError):
                await self._client.call(lambda etcd: etcd.lease.revoke(lease_id, timeout=TIMEOUT_S))

    def _put(self, entry: Entry, lease: Lease, lease_id: int) -> Any:
        key = self._subnets + entry.key
        return KVService.txn_op_put(key, keys.value(lease.attributes), lease=lease_id)

    async def _if_unchanged(self, entry: Entry, operation: Any) -> bool:
        answer = await self._client.call(
            lambda etcd: etcd.kv.txn(
                [records.unchanged(entry, self._subnets)], [operation], timeout=TIMEOUT_S
            )
        )
        return bool(answer.succeeded)

"""Holding a lease on a real etcd: renewed in time, published anew, and its loss noticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from flanneld.claim import Claim
from flanneld.subnet import etcd as etcd_module
from flanneld.subnet.keyspace import Keyspace
from flanneld.subnet.manager import Revoked, StoreError
from tests.flanneld.stores import PATIENCE_S, attributes, follow, store, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flanneld.lease import Lease
    from flanneld.subnet.etcd import Etcd
    from flanneld.subnet.records import Entry
    from tests.flanneld.etcdserver import EtcdServer


OTHER_MAC = "02:00:00:00:00:77"


class Held(NamedTuple):
    """A store, its lease, what it tells of all leases, and the task that holds the lease."""

    manager: Etcd
    lease: Lease
    snapshots: asyncio.Queue[dict[str, Lease]]
    holding: asyncio.Task[None]


def ignore(_: Lease) -> None:
    """What a renewal gives is of no interest."""


@contextlib.asynccontextmanager
async def held(etcd: EtcdServer, claim: Claim | None = None) -> AsyncIterator[Held]:
    """A lease that is held while all leases are watched, as the daemon does both."""
    async with store(etcd) as manager:
        lease = await manager.acquire(claim or Claim(attributes()))
        snapshots: asyncio.Queue[dict[str, Lease]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(follow(manager, snapshots)),
            asyncio.create_task(manager.hold(lease, ignore)),
        ]
        try:
            yield Held(manager, lease, snapshots, tasks[1])
        finally:
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize("how", ["deleted", "taken", "expired"])
def test_a_lost_lease_ends_it(etcd: EtcdServer, how: str) -> None:
    etcd.configure()

    async def body() -> None:
        async with held(etcd) as (_, lease, snapshots, holding):
            await snapshots.get()
            key = f"subnets/{lease.key}"
            if how == "deleted":
                etcd.delete(key)
            elif how == "taken":
                etcd.put(key, value(9))
            else:
                number = format(int(etcd.record(key)["lease"]), "x")
                etcd.ctl("lease", "revoke", number)
            with pytest.raises(Revoked, match=lease.key):
                async with asyncio.timeout(PATIENCE_S):
                    await holding

    asyncio.run(body())


def test_another_node_with_the_same_address_is_told_and_gives_way(
    etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One that has the address alone to show; the one who was there before keeps the subnet."""
    etcd.configure()
    theirs = attributes(mac=OTHER_MAC)

    async def body() -> None:
        async with held(etcd) as (_, lease, snapshots, _), asyncio.timeout(PATIENCE_S):
            await snapshots.get()
            async with held(etcd, Claim(theirs)) as (_, taken, _, holding):
                assert taken.key == lease.key
                with pytest.raises(Revoked, match="another node publishes this node's address"):
                    await holding
            # Started again it has its MAC to show, and is another node.
            async with held(etcd, Claim(theirs, frozenset({OTHER_MAC}))) as (_, other, _, _):
                assert other.key != lease.key
                assert etcd.leases()[lease.key] == value()

    asyncio.run(body())
    assert "with the MAC 02:00:00:00:00:77: give each its own" in caplog.text


async def written(etcd: EtcdServer, leases: dict[str, str]) -> None:
    """Wait until etcd has these."""
    while etcd.leases() != leases:  # noqa: ASYNC110 - another process changes them
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "raw",
    [
        *("", "null", "garbage", "[" * 2000, '{"PublicIP":"\\ud800"}', "{}"),
        # Those lead nobody to this node:
        *('{"PublicIP":"192.168.64.1"}', value().replace('"VNI":1', '"VNI":7')),
    ],
)
def test_an_own_key_that_becomes_unreadable_is_written_anew(etcd: EtcdServer, raw: str) -> None:
    etcd.configure()

    async def body() -> None:
        async with held(etcd) as (_, lease, snapshots, _), asyncio.timeout(PATIENCE_S):
            await snapshots.get()
            etcd.put(f"subnets/{lease.key}", raw)
            await written(etcd, {lease.key: value()})
            assert etcd.seconds_to_live(f"subnets/{lease.key}")[1] == 86400

    asyncio.run(body())


def test_a_reservation_that_becomes_unreadable_stays_one(etcd: EtcdServer) -> None:
    etcd.configure()
    etcd.put("subnets/10.244.5.0-24", '{"PublicIP":"192.168.64.1"}')

    async def body() -> None:
        async with held(etcd) as (_, lease, snapshots, _), asyncio.timeout(PATIENCE_S):
            await snapshots.get()
            etcd.put("subnets/10.244.5.0-24", "garbage")
            await written(etcd, {lease.key: value()})

    asyncio.run(body())
    assert "lease" not in etcd.record("subnets/10.244.5.0-24")


def test_a_lease_is_renewed_without_waking_anybody(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd.configure()
    monkeypatch.setattr(etcd_module, "RENEWAL_S", 0.05)

    async def body() -> tuple[int, int]:
        async with store(etcd) as manager:
            lease = await manager.acquire(Claim(attributes()))
            before = int(etcd.record(f"subnets/{lease.key}")["mod_revision"])
            renewals = etcd.calls("LeaseKeepAlive")
            told: asyncio.Queue[Lease] = asyncio.Queue()
            holding = asyncio.create_task(manager.hold(lease, told.put_nowait))
            async with asyncio.timeout(PATIENCE_S):
                ends = [(await told.get()).expires or 0 for _ in range(3)]
            assert etcd.calls("LeaseKeepAlive") >= renewals + 3
            assert ends == sorted(ends)
            holding.cancel()
            return before, int(etcd.record(f"subnets/{lease.key}")["mod_revision"])

    before, after = asyncio.run(body())
    assert before == after


def test_a_write_whose_answer_is_lost_is_no_loss_of_the_lease(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    etcd.configure()
    write = Keyspace.replace

    async def and_lose_the_answer(keys: Keyspace, entry: Entry, lease: Lease) -> bool:
        await write(keys, entry, lease)
        raise StoreError("no answer")

    async def body() -> None:
        async with held(etcd) as (manager, lease, snapshots, holding):
            with monkeypatch.context() as patched:
                patched.setattr(Keyspace, "replace", and_lose_the_answer)
                with pytest.raises(StoreError, match="no answer"):
                    await manager.publish(lease, attributes(7))
            async with asyncio.timeout(PATIENCE_S):
                while (await snapshots.get())[lease.key].attributes != attributes(7):
                    pass
            moved = await manager.publish(replace(lease, expires=0.0), attributes(7))
            assert moved == replace(lease, attributes=attributes(7))
            assert not holding.done()

    asyncio.run(body())


def test_a_new_address_is_published_under_the_same_lease(etcd: EtcdServer) -> None:
    etcd.configure()

    async def body() -> None:
        async with held(etcd) as (manager, lease, snapshots, holding):
            number = etcd.record(f"subnets/{lease.key}")["lease"]
            moved = await manager.publish(lease, attributes(7))
            assert etcd.leases() == {lease.key: value(7)}
            assert etcd.record(f"subnets/{lease.key}")["lease"] == number
            assert moved.attributes == attributes(7)
            # Events of the old and the new value have come; neither was taken for a loss.
            etcd.put("subnets/10.244.200.0-24", value(9))
            async with asyncio.timeout(PATIENCE_S):
                while "10.244.200.0-24" not in await snapshots.get():
                    pass
            assert not holding.done()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.shield(holding)
            assert not holding.done()

    asyncio.run(body())


def test_an_outage_is_no_loss(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    etcd.configure()
    monkeypatch.setattr(etcd_module, "RENEWAL_S", 0.05)
    monkeypatch.setattr(etcd_module, "_RETRY_S", 0.05)
    caplog.set_level(logging.INFO)

    async def body() -> None:
        async with store(etcd) as manager:
            lease = await manager.acquire(Claim(attributes()))
            etcd.stop()
            holding = asyncio.create_task(manager.hold(lease, ignore))
            async with asyncio.timeout(PATIENCE_S):
                while "not renewed yet" not in caplog.text:  # noqa: ASYNC110 - the log is what is seen
                    await asyncio.sleep(0.05)
            assert not holding.done()
            etcd.start()
            caplog.clear()
            async with asyncio.timeout(PATIENCE_S):
                while "lease renewed" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            holding.cancel()

    asyncio.run(body())

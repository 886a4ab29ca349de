"""What a watch on a real etcd shows, and what it does not let the daemon forget."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flanneld.claim import Claim
from flanneld.subnet import records
from flanneld.subnet.manager import StoreError
from tests.flanneld.stores import PATIENCE_S, attributes, follow, store, until, value, watching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.lease import Lease
    from tests.flanneld.etcdserver import EtcdServer


def macs(leases: Mapping[str, Lease]) -> dict[str, str]:
    return {
        key: lease.attributes.backend_data["VtepMAC"]
        for key, lease in leases.items()
        if lease.attributes.backend_data
    }


def test_peers_come_change_and_go(etcd: EtcdServer) -> None:
    etcd.put("subnets/10.244.2.0-24", value(2))

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            assert list(await until(seen, bool)) == ["10.244.2.0-24"]
            etcd.put("subnets/10.244.3.0-24", value(3))
            await until(seen, lambda leases: len(leases) == 2)
            etcd.put("subnets/10.244.3.0-24", value(3, "02:00:00:00:00:03"))
            await until(seen, lambda leases: "02:00:00:00:00:03" in macs(leases).values())
            etcd.delete("subnets/10.244.2.0-24")
            await until(seen, lambda leases: list(leases) == ["10.244.3.0-24"])

    asyncio.run(body())


def test_go_s_own_spellings_are_read(etcd: EtcdServer) -> None:
    etcd.put("subnets/10.244.2.0-24", '{"PublicIP":"192.168.64.2","PublicIPv6":null}')
    etcd.put(
        "subnets/10.244.3.0-24&fd00:0:0:3::-64",
        '{"publicip":"192.168.64.3","PublicIPv6":"fd01::3","backendtype":"host-gw","Other":1}',
    )

    async def body() -> Mapping[str, Lease]:
        async with store(etcd) as manager, watching(manager) as seen:
            return dict(await until(seen, bool))

    leases = asyncio.run(body())
    assert sorted(leases) == ["10.244.2.0-24", "10.244.3.0-24&fd00:0:0:3::-64"]
    udp, hostgw = (leases[key].attributes for key in sorted(leases))
    assert (udp.backend_type, str(udp.public_ip)) == ("", "192.168.64.2")
    assert (hostgw.backend_type, str(hostgw.public_ip6)) == ("host-gw", "fd01::3")


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("subnets/foo", "bar"),
        ("subnets/10.244.9.0-24", "bar"),
        ("subnets/10.244.9.0-24", '{"PublicIP":""}'),
        ("subnets/10.244.9.0-33", '{"PublicIP":"192.168.64.9"}'),
        ("subnets/300.244.9.0-24", '{"PublicIP":"192.168.64.9"}'),
        ("subnets/10.244.9.0-24", "[]"),
        ("subnets/10.244.9.0-24", '{"PublicIP":"192.168.64.9","BackendData":7}'),
    ],
)
def test_a_bad_key_is_told_and_harms_no_other(etcd: EtcdServer, key: str, raw: str) -> None:
    etcd.put("subnets/10.244.2.0-24", value(2))

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            await until(seen, bool)
            etcd.put(key, raw)
            etcd.put("subnets/10.244.3.0-24", value(3))
            leases = await until(seen, lambda leases: "10.244.3.0-24" in leases)
            assert sorted(leases) == ["10.244.2.0-24", "10.244.3.0-24"]
            (fault,) = (await manager.leases()).faults.values()
            assert f"/coreos.com/network/{key}" in fault
            assert len(fault) < 1000
            etcd.delete(key)
            etcd.put("subnets/10.244.4.0-24", value(4))
            leases = await until(seen, lambda leases: "10.244.4.0-24" in leases)
            assert len(leases) == 3
            assert not (await manager.leases()).faults

    asyncio.run(body())


@pytest.mark.parametrize("stray", ["old/10.244.1.0-24", "10.244.1.0-024", "x10.244.1.0-24"])
def test_a_stray_key_is_no_lease_s(etcd: EtcdServer, stray: str) -> None:
    """It ends in a lease's key: put and deleted, it touches neither this node's nor a peer's."""
    etcd.configure()

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            lease = await manager.acquire(Claim(attributes()))
            for key in (lease.key, "10.244.2.0-24"):
                etcd.put("subnets/10.244.2.0-24", value(2))
                await until(seen, lambda leases: len(leases) == 2)
                bad = stray.replace("10.244.1.0-", key.removesuffix("24"))
                etcd.put(f"subnets/{bad}", value(9))
                etcd.delete(f"subnets/{bad}")
                etcd.put("subnets/10.244.3.0-24", value(3))
                leases = await until(seen, lambda leases: "10.244.3.0-24" in leases)
                assert leases[lease.key].attributes == attributes()
                assert leases["10.244.2.0-24"].attributes == attributes(2)
                etcd.delete("subnets/10.244.3.0-24")

    asyncio.run(body())


def test_all_is_read_again_when_this_node_s_lease_is_missing(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has made the watch believe that: the next snapshot is what etcd has."""
    etcd.configure()
    real = records.Seen.apply

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            lease = await manager.acquire(Claim(attributes()))
            await until(seen, lambda leases: lease.key in leases)

            def forget(this: records.Seen, events: object) -> bool:
                real(this, events)  # type: ignore[arg-type]
                this._leases.pop(lease.key, None)
                return True

            monkeypatch.setattr(records.Seen, "apply", forget)
            etcd.put("subnets/10.244.2.0-24" if lease.key != "10.244.2.0-24" else "x", value(2))
            assert lease.key in await until(seen, lambda leases: len(leases) == 2)

    asyncio.run(body())


def test_a_bad_value_leaves_the_lease_as_it_was_known(etcd: EtcdServer) -> None:
    etcd.put("subnets/10.244.2.0-24", value(2))

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            await until(seen, bool)
            etcd.put("subnets/10.244.2.0-24", "{")
            etcd.put("subnets/10.244.3.0-24", value(3))
            assert len(await until(seen, lambda leases: "10.244.3.0-24" in leases)) == 2

    asyncio.run(body())


async def wanted(snapshots: asyncio.Queue[dict[str, Lease]], macs_wanted: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while macs(await snapshots.get()) != macs_wanted:
            pass


@pytest.mark.parametrize("gap", ["restart", "freeze"])
def test_what_changes_in_an_outage_is_seen_after_it(etcd: EtcdServer, gap: str) -> None:
    etcd.put("subnets/10.244.2.0-24", value(2, "02:00:00:00:00:02"))
    etcd.put("subnets/10.244.3.0-24", value(3, "02:00:00:00:00:03"))

    async def body() -> None:
        snapshots: asyncio.Queue[dict[str, Lease]] = asyncio.Queue()
        async with store(etcd) as manager:
            task = asyncio.create_task(follow(manager, snapshots))
            await wanted(
                snapshots,
                {"10.244.2.0-24": "02:00:00:00:00:02", "10.244.3.0-24": "02:00:00:00:00:03"},
            )
            if gap == "freeze":
                etcd.freeze()
                with pytest.raises(StoreError, match=r"no answer|UNAVAILABLE|DEADLINE"):
                    await manager.config()
                etcd.thaw()
            else:
                etcd.stop()
                with pytest.raises(StoreError, match=etcd.url):
                    await manager.config()
                etcd.start()
            # While it was away nothing was told: what was known is still true for the daemon.
            assert snapshots.empty()
            etcd.put("subnets/10.244.2.0-24", value(2, "02:00:00:00:00:22"))
            etcd.delete("subnets/10.244.3.0-24")
            etcd.ctl("compact", str(etcd.revision()))
            await wanted(snapshots, {"10.244.2.0-24": "02:00:00:00:00:22"})
            task.cancel()

    asyncio.run(body())


def test_a_compacted_revision_is_read_anew(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch begins at a revision that is no more: between list and watch etcd compacts."""
    etcd.put("subnets/10.244.2.0-24", value(2))

    async def body() -> None:
        async with store(etcd) as manager:
            real = manager._client.watch
            begun: list[int] = []

            def late(prefix: str, revision: int) -> object:
                if not begun:
                    for turn in range(5):
                        etcd.put("subnets/10.244.2.0-24", value(2, f"02:00:00:00:00:0{turn}"))
                    etcd.ctl("compact", str(etcd.revision()))
                begun.append(revision)
                return real(prefix, revision)

            monkeypatch.setattr(manager._client, "watch", late)
            async with watching(manager) as seen:
                await until(
                    seen, lambda leases: macs(leases) == {"10.244.2.0-24": "02:00:00:00:00:04"}
                )
            assert len(begun) <= 2

    asyncio.run(body())


def test_no_call_a_key(etcd: EtcdServer) -> None:
    """A hundred leases cost as many calls of etcd as none."""
    quoted = {i: value(i).replace('"', '\\"') for i in range(1, 101)}
    commands = "\n".join(
        f'put /coreos.com/network/subnets/10.244.{i}.0-24 "{text}"' for i, text in quoted.items()
    )
    etcd.configure()
    etcd.ctl("txn", text=f"\n{commands}\n\n\n")
    before = {method: etcd.calls(method) for method in ("Range", "LeaseTimeToLive", "Txn")}

    async def body() -> None:
        async with store(etcd) as manager, watching(manager) as seen:
            await manager.acquire(Claim(attributes(251)))
            assert len(await until(seen, bool)) == 101
            etcd.put("subnets/10.244.5.0-24", value(5, "02:00:00:00:00:55"))
            await until(seen, lambda leases: "02:00:00:00:00:55" in macs(leases).values())

    asyncio.run(body())
    spent = {method: etcd.calls(method) - count for method, count in before.items()}
    assert spent["LeaseTimeToLive"] == 0
    assert spent["Txn"] == 1
    assert spent["Range"] <= 4

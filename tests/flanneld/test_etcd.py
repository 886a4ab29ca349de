"""The store on etcd against a real server: what is written, taken again, refused, and noticed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import pytest

from flanneld.config import ConfigError
from flanneld.lease import Attributes, Lease
from flanneld.subnet import choice
from flanneld.subnet.manager import Exhausted, StoreError
from tests.flanneld.stores import attributes, store, value

if TYPE_CHECKING:
    from tests.flanneld.etcdserver import EtcdServer


async def acquired(
    server: EtcdServer, host: int = 1, previous: Lease | None = None, **extra: str
) -> Lease:
    async with store(server) as manager:
        return await manager.acquire(attributes(host, **extra), previous)


class TestAcquire:
    def test_go_reads_what_is_written(self, etcd: EtcdServer) -> None:
        etcd.configure()
        lease = asyncio.run(acquired(etcd))
        assert etcd.leases() == {lease.key: value()}
        left, granted = etcd.seconds_to_live(f"subnets/{lease.key}")
        assert granted == 86400
        assert left > 86000
        assert lease.expires is not None

    def test_one_of_the_first_hundred_is_drawn(self, etcd: EtcdServer) -> None:
        etcd.configure()
        lease = asyncio.run(acquired(etcd))
        assert lease.subnet is not None
        assert 1 <= lease.subnet.network_address.packed[2] <= 100

    def test_the_same_address_gets_its_lease_again(self, etcd: EtcdServer) -> None:
        etcd.configure()
        first = asyncio.run(acquired(etcd))
        version = etcd.record(f"subnets/{first.key}")["version"]
        again = asyncio.run(acquired(etcd, previous=Lease(IPv4Network("10.244.9.0/24"), None)))
        assert again.key == first.key
        # An unchanged value wakes none of the other nodes.
        assert etcd.record(f"subnets/{first.key}")["version"] == version

    def test_a_changed_mac_is_written_to_it(self, etcd: EtcdServer) -> None:
        etcd.configure()
        first = asyncio.run(acquired(etcd))
        again = asyncio.run(acquired(etcd, mac="02:00:00:00:00:01"))
        assert again.key == first.key
        assert etcd.leases() == {first.key: value(mac="02:00:00:00:00:01")}
        assert etcd.seconds_to_live(f"subnets/{first.key}")[1] == 86400

    def test_the_last_runs_subnet_is_taken_if_free(self, etcd: EtcdServer) -> None:
        etcd.configure()
        previous = Lease(IPv4Network("10.244.77.0/24"), None)
        assert asyncio.run(acquired(etcd, previous=previous)).key == "10.244.77.0-24"

    @pytest.mark.parametrize("taken", ["10.244.77.0-24", "10.244.64.0-18", "10.244.77.128-25"])
    def test_but_not_if_another_lease_overlaps_it(self, etcd: EtcdServer, taken: str) -> None:
        etcd.configure()
        etcd.put(f"subnets/{taken}", value(2))
        previous = Lease(IPv4Network("10.244.77.0/24"), None)
        lease = asyncio.run(acquired(etcd, previous=previous))
        assert lease.subnet is not None
        assert lease.subnet != previous.subnet
        assert etcd.leases()[taken] == value(2)

    def test_a_lease_that_does_not_fit_any_more_is_replaced(self, etcd: EtcdServer) -> None:
        etcd.configure()
        first = asyncio.run(acquired(etcd))
        etcd.configure(SubnetLen=26)
        second = asyncio.run(acquired(etcd, previous=first))
        assert second.key.endswith("-26")
        assert list(etcd.leases()) == [second.key]

    def test_a_lease_that_somebody_made_short_is_made_long(self, etcd: EtcdServer) -> None:
        etcd.configure()
        made = etcd.ctl("lease", "grant", "600").split()[1]
        etcd.put("subnets/10.244.5.0-24", value(), f"--lease={made}")
        assert asyncio.run(acquired(etcd)).key == "10.244.5.0-24"
        assert etcd.seconds_to_live("subnets/10.244.5.0-24")[1] == 86400

    def test_a_reservation_stays_one(self, etcd: EtcdServer) -> None:
        etcd.configure()
        etcd.put("subnets/10.244.5.0-24", '{"PublicIP":"192.168.64.1"}')
        lease = asyncio.run(acquired(etcd))
        assert lease.key == "10.244.5.0-24"
        assert lease.expires is None
        assert etcd.leases() == {"10.244.5.0-24": value()}
        assert "lease" not in etcd.record("subnets/10.244.5.0-24")

    def test_a_full_network_says_what_to_do(self, etcd: EtcdServer) -> None:
        etcd.configure(Network="10.244.0.0/28")
        for host in (2, 3, 4):
            asyncio.run(acquired(etcd, host))
        with pytest.raises(Exhausted, match=r"out of subnets.*widen the network"):
            asyncio.run(acquired(etcd, 5))

    def test_dual_stack_has_go_s_key_and_value(self, etcd: EtcdServer) -> None:
        etcd.configure(EnableIPv6=True, IPv6Network="fd00::/48")
        both = replace(
            attributes(),
            public_ip6=IPv6Address("fd01::1"),
            backend_data6={"VNI": 1, "VtepMAC": "02:00:00:00:00:06"},
        )

        async def body() -> Lease:
            async with store(etcd) as manager:
                return await manager.acquire(both, None)

        lease = asyncio.run(body())
        assert "&fd00:0:0:" in lease.key
        assert etcd.leases() == {
            lease.key: value()[:-1].replace("null", '"fd01::1"')
            + ',"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}}'
        }

    def test_ipv6_alone_serves_more_than_one_node(self, etcd: EtcdServer) -> None:
        etcd.configure(EnableIPv4=False, EnableIPv6=True, IPv6Network="fd00::/48")

        async def body(host: int) -> Lease:
            async with store(etcd) as manager:
                own = Attributes(public_ip6=IPv6Address(f"fd01::{host}"))
                return await manager.acquire(own, None)

        keys = {asyncio.run(body(host)).key for host in (1, 2, 3)}
        assert len(keys) == 3
        assert all(key.startswith("0.0.0.0-0&fd00:") for key in keys)

    def test_fifty_nodes_at_once_all_get_one(self, etcd: EtcdServer) -> None:
        etcd.configure(Network="10.244.0.0/18", SubnetMax="10.244.50.0")

        async def body() -> list[Lease]:
            async with AsyncExitStack() as stack:
                managers = [await stack.enter_async_context(store(etcd)) for _ in range(50)]
                return await asyncio.gather(
                    *(one.acquire(attributes(host), None) for host, one in enumerate(managers, 1))
                )

        leases = asyncio.run(body())
        assert len({lease.key for lease in leases}) == 50
        assert sorted(etcd.leases()) == sorted(lease.key for lease in leases)

    def test_families_that_collide_singly_are_noticed(
        self, etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two nodes draw one IPv4 subnet with different IPv6 ones: their keys differ."""
        etcd.configure(
            Network="10.244.0.0/28",
            SubnetMax="10.244.0.8",
            EnableIPv6=True,
            IPv6Network="fd00::/48",
        )
        raced = asyncio.Event()

        async def body() -> tuple[Lease, Lease]:
            async with store(etcd) as early, store(etcd) as late:
                own = [
                    replace(attributes(host), public_ip6=IPv6Address(f"fd01::{host}"))
                    for host in (1, 2)
                ]
                entries, _ = await late._keys.entries()
                first = await early.acquire(own[0], None)
                chosen = iter([first.subnet])

                def stale(leases: object, conf: object, dice: object) -> Lease:
                    subnet = next(chosen, None)
                    if subnet is None:
                        raced.set()
                        return real(leases, conf, dice)  # type: ignore[arg-type]
                    return Lease(subnet, IPv6Network("fd00:0:0:77::/64"))

                real = choice.any_free
                monkeypatch.setattr(choice, "any_free", stale)
                assert entries == []
                return first, await late.acquire(own[1], None)

        first, second = asyncio.run(body())
        assert raced.is_set()
        assert first.subnet != second.subnet
        assert sorted(etcd.leases()) == sorted([first.key, second.key])


class TestConfig:
    def test_missing_configuration_names_the_key(self, etcd: EtcdServer) -> None:
        async def body() -> None:
            async with store(etcd, "--etcd-prefix", "/other") as manager:
                await manager.config()

        with pytest.raises(StoreError, match="no key /other/config"):
            asyncio.run(body())

    def test_wrong_configuration_is_not_a_store_error(self, etcd: EtcdServer) -> None:
        etcd.configure(SubnetLen=31)

        async def body() -> None:
            async with store(etcd) as manager:
                await manager.config()

        with pytest.raises(ConfigError, match="SubnetLen must be less than /31"):
            asyncio.run(body())

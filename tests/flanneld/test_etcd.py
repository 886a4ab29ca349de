"""The store on etcd against a real server: what is written, taken again, refused, and noticed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld.claim import Claim
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
        return await manager.acquire(Claim(attributes(host, **extra), previous=previous))


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
        assert len(etcd.granted()) == 1

    def test_an_address_that_changed_while_it_was_stopped(self, etcd: EtcdServer) -> None:
        """The node keeps its subnet, and leaves nothing of the old address behind."""
        etcd.configure()
        first = asyncio.run(acquired(etcd))

        async def body() -> Lease:
            async with store(etcd) as manager:
                return await manager.acquire(Claim(attributes(77), last=first))

        assert asyncio.run(body()).key == first.key
        assert etcd.leases() == {first.key: value(77)}

    def test_an_own_key_that_became_unreadable_is_written_anew(self, etcd: EtcdServer) -> None:
        etcd.configure(SubnetMax="10.244.2.0")
        first = asyncio.run(acquired(etcd))
        for raw in ("", "null", "[" * 2000, "garbage"):
            etcd.put(f"subnets/{first.key}", raw)
            again = asyncio.run(acquired(etcd, previous=first))
            assert again.key == first.key
            assert etcd.leases() == {first.key: value()}
            assert etcd.seconds_to_live(f"subnets/{first.key}")[1] == 86400
        # A node that does not know it as its own takes another: somebody has it.
        etcd.put(f"subnets/{first.key}", "garbage")
        assert asyncio.run(acquired(etcd, 2)).key != first.key
        with pytest.raises(Exhausted):
            asyncio.run(acquired(etcd, 3))

    def test_a_lease_as_wide_as_the_network_keeps_nobody_out(self, etcd: EtcdServer) -> None:
        etcd.configure()
        for key in ("10.244.0.0-16", "10.0.0.0-8", "0.0.0.0-1"):
            etcd.put(f"subnets/{key}", value(9))
        assert asyncio.run(acquired(etcd)).key in etcd.leases()

    def test_the_underlay_is_never_leased(self, etcd: EtcdServer) -> None:
        etcd.configure(Network="192.168.64.0/22", SubnetLen=24)
        uplink = (ip_network("192.168.64.0/24"), ip_network("192.168.66.7/32"))
        etcd.put("subnets/192.168.65.0-24", value(1))
        claim = Claim(attributes(1), uplink=uplink[:1], avoid=uplink)

        async def body() -> Lease:
            async with store(etcd) as manager:
                return await manager.acquire(claim)

        assert asyncio.run(body()).key == "192.168.65.0-24"  # it was so, and does no harm
        claim = Claim(attributes(2), uplink=uplink, avoid=uplink)
        assert asyncio.run(body()).key == "192.168.67.0-24"

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
        assert len(etcd.granted()) == 1

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
                return await manager.acquire(Claim(both))

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
                return await manager.acquire(Claim(own))

        keys = {asyncio.run(body(host)).key for host in (1, 2, 3)}
        assert len(keys) == 3
        assert all(key.startswith("0.0.0.0-0&fd00:") for key in keys)

    def test_fifty_nodes_at_once_all_get_one(self, etcd: EtcdServer) -> None:
        etcd.configure(Network="10.244.0.0/18", SubnetMax="10.244.50.0")

        async def body() -> list[Lease]:
            async with AsyncExitStack() as stack:
                managers = [await stack.enter_async_context(store(etcd)) for _ in range(50)]
                return await asyncio.gather(
                    *(one.acquire(Claim(attributes(host))) for host, one in enumerate(managers, 1))
                )

        leases = asyncio.run(body())
        assert len({lease.key for lease in leases}) == 50
        assert sorted(etcd.leases()) == sorted(lease.key for lease in leases)
        assert len(etcd.granted()) == 50  # what a lost race had been granted is given back

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
                first = await early.acquire(Claim(own[0]))
                chosen = iter([first.subnet])

                def stale(*given: object) -> Lease:
                    subnet = next(chosen, None)
                    if subnet is None:
                        raced.set()
                        return real(*given)  # type: ignore[arg-type]
                    return Lease(subnet, IPv6Network("fd00:0:0:77::/64"))

                real = choice.any_free
                monkeypatch.setattr(choice, "any_free", stale)
                assert entries == []
                return first, await late.acquire(Claim(own[1]))

        first, second = asyncio.run(body())
        assert raced.is_set()
        assert first.subnet != second.subnet
        assert sorted(etcd.leases()) == sorted([first.key, second.key])
        assert len(etcd.granted()) == 2


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

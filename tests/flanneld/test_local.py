"""The store without a server: leases of one machine in a file, other nodes' in another."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from flanneld import config, files
from flanneld.claim import Claim
from flanneld.lease import Lease
from flanneld.subnet.local import Local
from flanneld.subnet.manager import Exhausted, Revoked, StoreError
from tests.flanneld.stores import attributes, until, value

if TYPE_CHECKING:
    from pathlib import Path

CONF = config.parse('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}')


def acquire(folder: Path, host: int = 1, previous: Lease | None = None, peers: str = "") -> Lease:
    return asyncio.run(
        Local(CONF, str(folder), peers).acquire(Claim(attributes(host), previous=previous))
    )


def put(path: Path, leases: dict[str, str]) -> None:
    """Replace a file of peers as an editor does."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({key: json.loads(text) for key, text in leases.items()}))
    temporary.rename(path)


def test_the_first_free_subnet(tmp_path: Path) -> None:
    assert [acquire(tmp_path, host).key for host in (1, 2, 1)] == [
        *("10.244.1.0-24", "10.244.2.0-24"),
        "10.244.1.0-24",
    ]
    held = json.loads((tmp_path / "leases.json").read_text())
    assert held == {f"10.244.{host}.0-24": json.loads(value(host)) for host in (1, 2)}


def test_peers_subnets_are_not_free(tmp_path: Path) -> None:
    peers = tmp_path / "peers.json"
    put(peers, {"10.244.1.0-24": value(9)})
    assert acquire(tmp_path / "data", peers=str(peers)).key == "10.244.2.0-24"


def test_the_last_run_s_subnet(tmp_path: Path) -> None:
    first = acquire(tmp_path / "lost", 2)
    assert first.key == "10.244.1.0-24"
    third = [acquire(tmp_path / "full", host) for host in (1, 2, 3)][-1]
    assert acquire(tmp_path / "new", 3, previous=third).key == third.key


def test_a_lease_that_does_not_fit_any_more_is_replaced(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    conf = config.parse('{"Network":"10.244.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}')
    claim = Claim(attributes(), previous=first)
    second = asyncio.run(Local(conf, str(tmp_path)).acquire(claim))
    assert second.key == "10.244.0.64-26"
    assert json.loads((tmp_path / "leases.json").read_text()).keys() == {second.key}


def test_a_file_for_all_nodes(tmp_path: Path) -> None:
    """A node takes the subnet that it gives to the node's address, and sees the others."""
    peers = tmp_path / "peers.json"
    put(peers, {f"10.244.{host + 6}.0-24": value(host) for host in (1, 2)})
    assert acquire(tmp_path / "one", 1, peers=str(peers)).key == "10.244.7.0-24"
    assert acquire(tmp_path / "two", 2, peers=str(peers)).key == "10.244.8.0-24"
    assert acquire(tmp_path / "three", 3, peers=str(peers)).key == "10.244.1.0-24"


class TestASubnetThatIsWanted:
    WANTED = Lease(IPv4Network("10.244.9.0/24"), None)

    def acquire(self, folder: Path, host: int = 1, peers: str = "") -> Lease:
        wanting = Local(CONF, str(folder), peers, self.WANTED)
        return asyncio.run(wanting.acquire(Claim(attributes(host))))

    def test_it_is_leased_and_another_given_up_for_it(self, tmp_path: Path) -> None:
        acquire(tmp_path, 2)
        assert acquire(tmp_path).key == "10.244.2.0-24"
        for _ in range(2):
            assert self.acquire(tmp_path).key == self.WANTED.key
        held = json.loads((tmp_path / "leases.json").read_text())
        assert sorted(held) == ["10.244.1.0-24", "10.244.9.0-24"]

    def test_not_if_a_peer_has_it(self, tmp_path: Path) -> None:
        peers = tmp_path / "peers.json"
        put(peers, {"10.244.9.128-25": value(9)})
        with pytest.raises(StoreError, match=r"peers\.json gives 10.244.9.128-25 to 192.168.64.9"):
            self.acquire(tmp_path / "data", peers=str(peers))
        put(peers, {"10.244.9.0-24": value(1)})
        assert self.acquire(tmp_path / "data", peers=str(peers)).key == self.WANTED.key

    def test_not_if_a_daemon_of_this_machine_has_it(self, tmp_path: Path) -> None:
        self.acquire(tmp_path, 2)
        with pytest.raises(StoreError, match="give one of the two another --subnet"):
            self.acquire(tmp_path, 1)


def test_one_subnet_of_this_node_and_a_peer_is_named(tmp_path: Path) -> None:
    peers = tmp_path / "peers.json"

    async def body() -> None:
        one = Local(CONF, str(tmp_path / "data"), str(peers))
        own = await one.acquire(Claim(attributes(1)))
        put(peers, {own.key: value(9), "10.244.2.0-24": value(2)})
        seen = await one.leases()
        assert seen.leases[own.key] == own
        assert seen.faults.keys() == {own.key}
        assert (
            "192.168.64.1 on this machine has it: give one of the two another"
            in (seen.faults[own.key])
        )
        put(peers, {own.key: value(1)})  # the same node's
        assert not (await one.leases()).faults

    asyncio.run(body())


HOSTILE = [
    *("7", "null", '"x"', "[" * 2000 + "]" * 2000, '{"a":' * 985 + "1" + "}" * 985),
    value(9).replace('"BackendData":{', '"BackendData":{"a":' + "[" * 40 + "]" * 40 + ","),
    *('{"PublicIP":"\\ud800"}', '{"BackendData":{"\\udfff":1}}', '{"PublicIP":"192.168.64.300"}'),
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_wrong_entry_harms_no_other(tmp_path: Path, bad: str) -> None:
    """In either file: it is named and kept, its subnet is not free, and the others count."""
    peers, held = tmp_path / "peers.json", tmp_path / "leases.json"
    peers.write_text(f'{{"10.244.1.0-24": {bad}, "x": {bad}, "10.244.7.0-24": {value(7)}}}')
    held.write_text(f'{{"10.244.2.0-24": {bad}, "10.244.8.0-24": {value(8)}}}')

    async def body() -> None:
        local = Local(CONF, str(tmp_path), str(peers))
        own = await local.acquire(Claim(attributes(1)))
        assert own.key == "10.244.3.0-24"
        seen = await local.leases()
        assert seen.leases.keys() == {own.key, "10.244.7.0-24", "10.244.8.0-24"}
        assert len(seen.faults) == 3
        assert all(len(fault) < 1000 for fault in seen.faults.values())
        assert "10.244.2.0-24" in held.read_text()
        # This node's own is written anew.
        held.write_text(f'{{"{own.key}": {bad}, "10.244.8.0-24": {value(8)}}}')
        holding = asyncio.create_task(local.hold(own, lambda _: None))
        async with aclosing(local.watch()) as snapshots, asyncio.timeout(60):
            async for now in snapshots:
                if own.key not in now.faults:
                    break
        assert json.loads(held.read_text())[own.key] == json.loads(value(1))
        holding.cancel()

    asyncio.run(body())


def test_an_own_entry_that_became_unreadable_is_taken_back(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    (tmp_path / "leases.json").write_text(f'{{"{first.key}": null}}')
    assert acquire(tmp_path, 1, previous=first) == first
    assert json.loads((tmp_path / "leases.json").read_text())[first.key] == json.loads(value(1))


def test_a_full_network(tmp_path: Path) -> None:
    conf = config.parse('{"Network":"10.244.0.0/28"}')
    for host in (1, 2, 3):
        asyncio.run(Local(conf, str(tmp_path)).acquire(Claim(attributes(host))))
    with pytest.raises(Exhausted, match="widen the network"):
        asyncio.run(Local(conf, str(tmp_path)).acquire(Claim(attributes(4))))


def test_files_are_watched(tmp_path: Path) -> None:
    peers = tmp_path / "peers.json"
    put(peers, {"10.244.9.0-24": value(9)})

    async def body() -> None:
        one = Local(CONF, str(tmp_path / "data"), str(peers))
        other = Local(CONF, str(tmp_path / "data"))
        own = await one.acquire(Claim(attributes(1)))
        async with aclosing(one.watch()) as seen:
            assert set(await until(seen, bool)) == {own.key, "10.244.9.0-24"}
            await other.acquire(Claim(attributes(2)))
            await until(seen, lambda leases: len(leases) == 3)
            put(peers, {"10.244.9.0-24": value(9, "02:00:00:00:00:09")})
            await until(
                seen,
                lambda leases: (
                    leases["10.244.9.0-24"].attributes.backend_data
                    == {"VNI": 1, "VtepMAC": "02:00:00:00:00:09"}
                ),
            )
            # Half a file changes nothing; a bad entry only itself.
            peers.write_text('{"10.244.9.0-24":')
            put(peers, {"10.244.8.0-24": value(8), "nonsense": value(7)})
            leases = await until(seen, lambda leases: "10.244.8.0-24" in leases)
            assert len(leases) == 3

    asyncio.run(body())


def test_a_volume_of_kubernetes_is_watched(tmp_path: Path) -> None:
    for host in (2, 3):
        (tmp_path / f"..{host}").mkdir()
        put(tmp_path / f"..{host}" / "peers.json", {f"10.244.{host}.0-24": value(host)})
    (tmp_path / "..data").symlink_to("..2")
    (tmp_path / "peers.json").symlink_to("..data/peers.json")

    async def body() -> None:
        store = Local(CONF, str(tmp_path), str(tmp_path / "peers.json"))
        async with aclosing(store.watch()) as snapshots:
            await until(snapshots, lambda leases: leases.keys() == {"10.244.2.0-24"})
            (tmp_path / "..new").symlink_to("..3")
            (tmp_path / "..new").rename(tmp_path / "..data")
            await until(snapshots, lambda leases: leases.keys() == {"10.244.3.0-24"})

    asyncio.run(body())


def test_a_lease_taken_out_of_the_file_is_lost(tmp_path: Path) -> None:
    async def body() -> None:
        store = Local(CONF, str(tmp_path))
        lease = await store.acquire(Claim(attributes(1)))
        holding = asyncio.create_task(store.hold(lease, lambda _: None))
        moved = await store.publish(lease, attributes(7))
        await Local(CONF, str(tmp_path)).acquire(Claim(attributes(2)))
        # The new address and the other's lease are events, and no loss.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.shield(holding)
        assert moved.attributes == attributes(7)
        put(tmp_path / "leases.json", {})
        async with asyncio.timeout(30):
            with pytest.raises(Revoked, match=lease.key):
                await holding
        with pytest.raises(Revoked):
            await store.publish(lease, attributes(8))

    asyncio.run(body())


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "leases.json").write_text(text)
    with pytest.raises(StoreError, match=r"leases\.json is not"):
        acquire(tmp_path)


def test_a_broken_file_of_peers_is_named(tmp_path: Path) -> None:
    (tmp_path / "peers.json").write_text("{")
    with pytest.raises(StoreError, match=r"peers\.json is not JSON"):
        acquire(tmp_path / "data", peers=str(tmp_path / "peers.json"))


def test_a_daemon_that_hangs_with_the_lock_holds_up_no_other(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    with files.lock(str(tmp_path / "lock")), pytest.raises(StoreError, match="lock is locked by"):
        acquire(tmp_path, 2)
    assert json.loads((tmp_path / "leases.json").read_text()).keys() == {first.key}
    assert acquire(tmp_path, 2).key == "10.244.2.0-24"


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"keeping leases in .*/file/leases\.json: .*--data-dir"):
        acquire(tmp_path / "file")


def test_a_file_of_peers_without_its_folder_is_named(tmp_path: Path) -> None:
    async def body() -> None:
        store = Local(CONF, str(tmp_path), str(tmp_path / "none" / "peers.json"))
        async with aclosing(store.watch()) as snapshots:
            await anext(snapshots)

    with pytest.raises(StoreError, match=r"watching the folders of .*/none/peers\.json.*--peers"):
        asyncio.run(body())

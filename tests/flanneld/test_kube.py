"""The store on Kubernetes, against an API server that does as it is told, faults included."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from flanneld import options
from flanneld.claim import Claim
from flanneld.flags import UsageError
from flanneld.lease import Attributes
from flanneld.subnet.kube.store import Kube, turn_s
from flanneld.subnet.manager import StoreError
from tests.flanneld.apiserver import api_server, in_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from flanneld.lease import Lease
    from flanneld.subnet.manager import Snapshot
    from tests.flanneld.apiserver import ApiServer, Asked

PATIENCE_S = 60.0
HERE = Attributes(IPv4Address("192.168.64.1"), backend_type="host-gw")
PEER = {
    "kube_subnet_manager": "true",
    "backend_type": "host-gw",
    "backend_data": "null",
    "public_ip": "192.168.64.2",
}
WRITTEN = {
    "kube-subnet-manager": "true",
    "backend-type": "host-gw",
    "backend-data": "null",
    "public-ip": "192.168.64.1",
}


class Node:
    """One node's store, used as the daemon uses it."""

    def __init__(self, manager: Kube) -> None:
        self.manager = manager
        self.snapshot: Snapshot | None = None
        self.failures: list[str] = []
        self.followed: list[Lease] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def acquire(self) -> Lease:
        while True:
            try:
                return await self.manager.acquire(Claim(HERE))
            except StoreError as error:
                self.failures.append(str(error))
                await asyncio.sleep(0.01)

    async def join(self) -> Lease:
        await self.manager.leases()
        lease = await self.acquire()
        self.tasks.append(asyncio.create_task(self.manager.hold(lease, self.followed.append)))
        self.tasks.append(asyncio.create_task(self.follow()))
        return lease

    async def follow(self) -> None:
        while True:
            try:
                async with aclosing(self.manager.watch()) as snapshots:
                    async for self.snapshot in snapshots:
                        pass
            except StoreError as error:
                self.failures.append(str(error))
            await asyncio.sleep(0.05)

    @property
    def peers(self) -> set[str]:
        return set(self.snapshot.leases if self.snapshot else ())


@asynccontextmanager
async def node(
    server: ApiServer, tmp_path: Path, *flags: str, backend: str = "host-gw", **environ: str
) -> AsyncIterator[Node]:
    conf = tmp_path / "net-conf.json"
    conf.write_text(json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": backend}}))
    argv = ["--kube-subnet-mgr", "--net-config-path", str(conf), "--data-dir", str(tmp_path)]
    if not any("kubeconfig" in flag for flag in flags):
        argv += ["--kube-api-url", server.url]
    manager = Kube(options.read([*argv, *flags], {}), environ or {"NODE_NAME": "node1"})
    made = Node(manager)
    try:
        yield made
    finally:
        for task in made.tasks:
            task.cancel()
        for task in made.tasks:
            with suppress(asyncio.CancelledError):
                await task
        await manager.close()


def kept_in(folder: Path) -> Path:
    return folder / "kube" / "run-flannel-subnet.env.json"


async def until(what: str, holds: Callable[[], object]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - of a store that tells nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def two_nodes(server: ApiServer) -> None:
    await server.put("node1", "10.244.1.0/24")
    await server.put("node2", "10.244.2.0/24", **PEER)


async def known_before(server: ApiServer, folder: Path) -> None:
    """Let the node be in a cluster of two until it has kept what it knows, and stop it."""
    await two_nodes(server)
    async with node(server, folder) as here:
        await here.join()
        await until("it is kept", kept_in(folder).exists)


BOTH = {"10.244.1.0-24", "10.244.2.0-24"}


def is_watch(asked: Asked) -> bool:
    return asked.is_watch


def is_list(asked: Asked) -> bool:
    return asked.is_list


@in_loop
async def test_a_node_publishes_and_sees_the_others(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        lease = await here.join()
        assert lease.subnet == IPv4Network("10.244.1.0/24")
        assert server.annotations("node1") == WRITTEN
        await until("both are seen", lambda: here.peers == BOTH)
        await server.put("node3", "10.244.3.0/24", **PEER)
        await until("a third comes", lambda: len(here.peers) == 3)
        await server.delete("node2")
        await until("one goes", lambda: here.peers == {"10.244.1.0-24", "10.244.3.0-24"})
        assert not here.failures


@in_loop
async def test_the_condition_waits_for_the_data_plane(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        assert not server.condition("node1")
        here.manager.announce()
        await until("it is set", lambda: server.condition("node1"))
        told = server.condition("node1")
        assert (told["status"], told["reason"]) == ("False", "FlannelIsUp")
        before = sum(one.method == "PATCH" for one in server.asked)
        here.manager.announce()
        await server.put("node3", "10.244.3.0/24", **PEER)
        await until("time has passed", lambda: len(here.peers) == 3)
        assert sum(one.method == "PATCH" for one in server.asked) == before, "once is enough"


@in_loop
async def test_the_condition_can_be_left_to_others(tmp_path: Path) -> None:
    flag = "--set-node-network-unavailable=false"
    async with api_server() as server, node(server, tmp_path, flag) as here:
        await two_nodes(server)
        await here.join()
        here.manager.announce()
        await server.wipe("node1")
        await until("it is back", lambda: server.annotations("node1") == WRITTEN)
        assert not server.condition("node1")


@in_loop
async def test_a_podcidr_is_waited_for(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await here.manager.leases()
        waiting = asyncio.create_task(here.acquire())
        await until("it says so", lambda: here.failures)
        assert "there is no Node called node1" in here.failures[0]
        await server.put("node1")
        await until("it says more", lambda: "--allocate-node-cidrs" in here.failures[-1])
        await until("an Event says so", lambda: len(server.events) == 2)
        told = server.events[-1]
        assert told["involvedObject"]["name"] == "node1"
        assert "pod cidr not assigned" in told["message"]
        await server.put("node1", "10.244.9.0/24")
        assert (await waiting).key == "10.244.9.0-24"
        assert len(server.events) == 2, "the same is said once"


@in_loop
async def test_another_network_is_waited_for(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await server.put("node1", "10.9.1.0/24")
        await here.manager.leases()
        with pytest.raises(StoreError, match="does not lie in the network"):
            await here.manager.acquire(Claim(HERE))
        assert not server.annotations("node1")


@in_loop
async def test_annotations_that_somebody_wipes_are_back(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        for _ in range(3):
            await server.wipe("node1")
            await until("they are back", lambda: server.annotations("node1") == WRITTEN)
        await server.put("node1", backend_v6_data="null", public_ip="192.0.2.9")
        await until("they are right", lambda: server.annotations("node1") == WRITTEN)


@in_loop
async def test_an_overwritten_address_is_followed(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        told = WRITTEN | {"public-ip": "203.0.113.7", "public-ip-overwrite": "203.0.113.7"}
        await server.put("node1", public_ip_overwrite="203.0.113.7")
        await until("it is told", lambda: server.annotations("node1") == told)
        await server.wipe("node1")
        await until("and not any more", lambda: server.annotations("node1") == WRITTEN)


@pytest.mark.parametrize("cidr", ["10.244.1.0/24", "10.244.7.0/24"])
@in_loop
async def test_a_node_made_anew_is_followed(tmp_path: Path, cidr: str) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        lease = await here.join()
        here.manager.announce()
        await until("the condition is set", lambda: server.condition("node1"))
        await server.delete("node1")
        await until("it is said", lambda: here.snapshot and "node1" in here.snapshot.faults)
        assert lease.key in here.peers, "the data plane stays"
        await server.put("node1")
        await server.put("node1", cidr)
        await until("it is written", lambda: server.annotations("node1") == WRITTEN)
        await until("the condition is set again", lambda: server.condition("node1"))
        await until("all is well", lambda: here.snapshot and not here.snapshot.faults)
        assert [one.key for one in here.followed] == [cidr.replace("/", "-")][
            cidr.endswith("1.0/24") :
        ]
        assert cidr.replace("/", "-") in here.peers


@in_loop
async def test_a_patch_lands_on_no_other_node(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.manager.leases()
        await server.delete("node1")
        await server.put("node1", "10.244.5.0/24")
        assert (await here.join()).key == "10.244.5.0-24"
        patches = [json.loads(one.body) for one in server.asked if one.method == "PATCH"]
        assert [one["metadata"]["uid"] for one in patches] == [
            server.nodes["node1"]["metadata"]["uid"]
        ]


@in_loop
async def test_the_past_is_forgotten(tmp_path: Path) -> None:
    """410: what has changed meanwhile is seen nevertheless, a deletion too."""
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        server.fail(is_watch, status=503)  # so that it is not listened to meanwhile
        server.cut()
        await server.delete("node2")
        await server.put("node3", "10.244.3.0/24", **PEER)
        await server.forget()
        await until("all is seen", lambda: here.peers == {"10.244.1.0-24", "10.244.3.0-24"})


@in_loop
async def test_a_restored_server_is_read_anew(tmp_path: Path) -> None:
    """Its revisions are lower than before: a watch from the old one would say nothing for long."""
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        server.revision -= 90
        server.oldest = 0
        server.history.clear()
        server.nodes.pop("node2")
        server.cut()
        await until("what is gone is gone", lambda: here.peers == {"10.244.1.0-24"})
        await server.put("node3", "10.244.3.0/24", **PEER)
        await until("what comes is seen", lambda: "10.244.3.0-24" in here.peers)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 500},
        {"status": 503},
        {"status": 504, "body": {"message": "Too large resource version"}},
        {"status": 403, "body": {"message": 'nodes "node1" is forbidden: not yet ready'}},
        {},
    ],
)
@in_loop
async def test_faults_pass(tmp_path: Path, fault: dict[str, object]) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        for fits in (is_watch, is_list, lambda asked: asked.method == "PATCH"):
            server.fail(fits, **fault)
        server.oldest = server.revision + 1  # so that all is read anew
        await server.forget()
        await server.wipe("node1")
        await server.put("node3", "10.244.3.0/24", **PEER)
        await until("a third comes", lambda: len(here.peers) == 3)
        await until("it is written", lambda: server.annotations("node1") == WRITTEN)


@pytest.mark.parametrize(
    "body", [{}, {"metadata": None}, {"items": [7]}, {"metadata": {"name": 1}, "items": {}}]
)
@in_loop
async def test_answers_of_another_shape_pass(tmp_path: Path, body: dict[str, object]) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        for fits in (is_list, lambda asked: asked.method == "PATCH", lambda _: True):
            server.fail(fits, status=200, body=body)
        with pytest.raises(StoreError, match="the API server sends what is n"):
            await here.manager.leases()
        for _ in range(3):
            with suppress(StoreError):
                await here.manager.leases()
        await here.join()
        await until("both are seen", lambda: here.peers == BOTH)
        await until("it is written", lambda: server.annotations("node1") == WRITTEN)


@in_loop
async def test_a_time_to_come_again_is_kept(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        server.fail(lambda _: True, status=429, headers={"Retry-After": "7"})
        with pytest.raises(StoreError) as refused:
            await here.manager.leases()
        assert refused.value.after_s == 7.0


@in_loop
async def test_a_token_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    async with api_server() as server:
        server.token = "old"  # noqa: S105 - a test's
        config = {
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        flags = ("--kubeconfig-file", str(tmp_path / "kubeconfig"))
        async with node(server, tmp_path, *flags) as here:
            await two_nodes(server)
            await here.join()
            server.token = "new"  # noqa: S105 - a test's
            token.write_text("new\n")
            await server.wipe("node1")
            await until("it is written", lambda: server.annotations("node1") == WRITTEN)


@in_loop
async def test_it_starts_from_what_it_knew(tmp_path: Path) -> None:
    async with api_server() as server:
        await known_before(server, tmp_path)
        await server.stop()
        async with node(server, tmp_path) as here:
            lease = await here.join()
            assert lease.key == "10.244.1.0-24"
            await until("both are there", lambda: here.peers == BOTH)
            assert here.snapshot is not None
            assert "as the API server told them last" in here.snapshot.faults[""]
            await server.put("node3", "10.244.3.0/24", **PEER)
            await server.wipe("node1")
            await server.start()
            await until("the third is there", lambda: len(here.peers) == 3)
            await until("nothing is old", lambda: here.snapshot and not here.snapshot.faults)
            await until("it is written", lambda: server.annotations("node1") == WRITTEN)


@in_loop
async def test_a_silent_server_is_not_waited_for(tmp_path: Path) -> None:
    async with api_server() as server:
        await known_before(server, tmp_path)
        server.fail(lambda _: True, hangs=True)
        async with node(server, tmp_path) as here:
            snapshot = await here.manager.leases()
            assert "it does not answer" in snapshot.faults[""]


@in_loop
async def test_what_was_kept_for_another_node_does_not_count(tmp_path: Path) -> None:
    async with api_server() as server:
        await known_before(server, tmp_path)
        await server.stop()
        async with node(server, tmp_path, NODE_NAME="node2") as here:
            with pytest.raises(StoreError, match="does not answer"):
                await here.manager.leases()
        await server.start()


@pytest.mark.parametrize("request_", range(7))
@in_loop
async def test_a_daemon_that_is_killed_at_a_request_has_done_no_harm(
    tmp_path: Path, request_: int
) -> None:
    """Whatever it had asked for last, the next one finds its way."""
    async with api_server() as server:
        await two_nodes(server)
        server.fail(lambda _: len(server.asked) > request_, hangs=True)
        async with node(server, tmp_path) as here:
            starting = asyncio.create_task(here.join())
            await until("it has come so far", lambda: not server.faults)
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
        async with node(server, tmp_path) as here:
            assert (await here.join()).key == "10.244.1.0-24"
            await until("both are seen", lambda: here.peers == BOTH)
            here.manager.announce()
            await until("the condition is set", lambda: server.condition("node1"))
        assert server.annotations("node1") == WRITTEN
        assert server.annotations("node2")["public-ip"] == PEER["public_ip"]


def test_lists_are_spread_where_many_read_them() -> None:
    assert turn_s(0) == turn_s(200) == 0.0
    assert 0.0 < turn_s(400) < turn_s(5000) <= 3.0


@in_loop
async def test_many_nodes_come_in_pages(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        for number in range(3, 1203):
            cidr = f"10.{244}.{number // 16}.{number % 16 * 16}/28"
            await server.put(f"node{number}", cidr, **PEER)
        await here.join()
        await until("all are seen", lambda: len(here.peers) == 1202)
        lists = [one for one in server.asked if one.is_list]
        assert [one.query["limit"] for one in lists] == ["500"] * 3
        assert "continue" in lists[1].query


@in_loop
async def test_a_server_that_can_tells_all_nodes_as_events(tmp_path: Path) -> None:
    async with api_server(watch_list=True) as server, node(server, tmp_path) as here:
        await two_nodes(server)
        await here.join()
        await until("both are seen", lambda: here.peers == BOTH)
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        await server.delete("node2")
        await server.put("node3", "10.244.3.0/24", **PEER)
        await server.forget()
        await until("all is seen", lambda: here.peers == {"10.244.1.0-24", "10.244.3.0-24"})
        assert not any(map(is_list, server.asked))
        (stream, *_) = (one.query for one in server.asked if one.is_stream)
        assert stream["resourceVersionMatch"] == "NotOlderThan"
        assert stream["allowWatchBookmarks"] == "true"


@in_loop
async def test_a_stream_that_breaks_off_is_no_list(tmp_path: Path) -> None:
    async with api_server(watch_list=True) as server, node(server, tmp_path) as here:
        await two_nodes(server)
        server.fail(lambda asked: asked.is_stream)
        await here.join()
        await until("both are seen", lambda: here.peers == BOTH)
        assert any(map(is_list, server.asked))


@in_loop
async def test_other_addresses_of_the_api_server_are_learned_and_kept(tmp_path: Path) -> None:
    async with api_server() as server, api_server() as service:
        await two_nodes(server)
        server.servers = [("127.0.0.1", server.port)]
        service.nodes, service.servers = server.nodes, server.servers
        service.revision = server.revision
        async with node(service, tmp_path) as here:
            await here.join()
            kept = kept_in(tmp_path)
            await until("they are kept", lambda: kept.exists() and "127.0.0.1" in kept.read_text())
        await service.stop()
        server.asked.clear()
        async with node(service, tmp_path) as here:
            assert (await here.manager.leases()).own == "10.244.1.0-24"
            assert server.asked, "the Service's address does not answer, the server's own does"
        await service.start()


@in_loop
async def test_a_pod_finds_its_node(tmp_path: Path) -> None:
    pod = {"POD_NAME": "flannel-x", "POD_NAMESPACE": "kube-flannel"}
    async with api_server() as server, node(server, tmp_path, **pod) as here:
        await two_nodes(server)
        with pytest.raises(StoreError, match="pods not found"):
            await here.manager.leases()
        server.pods["flannel-x"] = {"spec": {"nodeName": "node1"}}
        assert (await here.join()).key == "10.244.1.0-24"


@in_loop
async def test_with_alloc_only_its_own_node_counts(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path, backend="alloc") as here:
        await two_nodes(server)
        await here.join()
        await until("it watches", lambda: any(map(is_watch, server.asked)))
        asked = [one for one in server.asked if one.path == "/api/v1/nodes"]
        assert {one.query.get("fieldSelector") for one in asked} == {"metadata.name=node1"}
        await until("it sees itself", lambda: here.peers == {"10.244.1.0-24"})


@in_loop
async def test_what_an_earlier_run_wrote_is_told(tmp_path: Path) -> None:
    async with api_server() as server, node(server, tmp_path) as here:
        await two_nodes(server)
        mine = PEER | {"public_ip": "192.168.64.1", "node_public_ip": "192.168.64.101"}
        await server.put("node1", **mine)
        snapshot = await here.manager.leases()
        assert snapshot.own == "10.244.1.0-24"
        assert snapshot.asked == (IPv4Address("192.168.64.101"),)
        assert snapshot.leases[snapshot.own].attributes.public_ip == IPv4Address("192.168.64.1")


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        ((), {"HOME": "/"}, "NODE_NAME, or POD_NAME and POD_NAMESPACE"),
        (("--kube-annotation-prefix=UPPER",), {}, "kube-annotation-prefix"),
        (("--kubeconfig-file=/nowhere",), {}, "kubeconfig-file.*/nowhere"),
    ],
)
@in_loop
async def test_what_can_never_work_is_refused(
    tmp_path: Path, flags: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    async with api_server() as server:
        with pytest.raises(UsageError, match=said):
            async with node(server, tmp_path, *flags, **environ):
                pass

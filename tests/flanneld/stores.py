"""The store under test, and what the nodes of a test publish."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from flanneld import options
from flanneld.lease import Attributes
from flanneld.subnet.etcd import Etcd
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from flanneld.lease import Lease
    from flanneld.subnet.manager import Snapshot
    from tests.flanneld.etcdserver import EtcdServer

PATIENCE_S = 60.0
MAC = "c6:d2:32:6f:8f:44"


def attributes(host: int = 1, mac: str = MAC) -> Attributes:
    return Attributes(
        public_ip=IPv4Address(f"192.168.64.{host}"),
        backend_type="vxlan",
        backend_data={"VNI": 1, "VtepMAC": mac},
    )


def value(host: int = 1, mac: str = MAC) -> str:
    """What the Go daemon writes for the same node, byte for byte."""
    return (
        f'{{"PublicIP":"192.168.64.{host}","PublicIPv6":null,"BackendType":"vxlan",'
        f'"BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}'
    )


@asynccontextmanager
async def store(server: EtcdServer, *argv: str) -> AsyncIterator[Etcd]:
    """A store with these flags; its connections are closed in the end."""
    manager = Etcd(options.read(["--etcd-endpoints", server.url, *argv], {}))
    try:
        yield manager
    finally:
        await manager.close()


async def until(
    snapshots: AsyncGenerator[Snapshot, None],
    seen: Callable[[Mapping[str, Lease]], bool],
) -> Mapping[str, Lease]:
    """Take snapshots until one is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        async for snapshot in snapshots:
            if seen(snapshot.leases):
                return snapshot.leases
    raise AssertionError("the watch has ended")


@asynccontextmanager
async def watching(manager: Etcd) -> AsyncIterator[AsyncGenerator[Snapshot, None]]:
    """A watch that is closed in the end."""
    async with aclosing(manager.watch()) as snapshots:
        yield snapshots


async def follow(manager: Etcd, snapshots: asyncio.Queue[dict[str, Lease]]) -> None:
    """Watch as the daemon does: begin again whenever the store is away."""
    while True:
        with suppress(StoreError):
            async with watching(manager) as seen:
                async for snapshot in seen:
                    snapshots.put_nowait(dict(snapshot.leases))
        await asyncio.sleep(0.1)

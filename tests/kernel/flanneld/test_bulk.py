"""5,000 peers: all programmed in one pass, all repaired, and the loop answers meanwhile."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from flanneld.kernel.reconciler import Reconciler
from flanneld.lease import Attributes, Lease
from netlink.handle import BATCH
from tests.kernel.flanneld.scene import forwards, neighbours, plan, routes, up
from tests.kernel.privatens import private, sh

PEERS = 5_000
BASE = int(IPv4Address("10.244.16.0"))


def peer(number: int) -> Lease:
    """A peer with a /29: the network has room for 8,000 of them."""
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
    return Lease(
        IPv4Network((BASE + (number << 3), 29)),
        None,
        Attributes(
            public_ip=IPv4Address("172.16.0.0") + number,
            backend_type="vxlan",
            backend_data={"VNI": 1, "VtepMAC": mac},
        ),
    )


@pytest.mark.timeout(600)
@private
def test_bulk() -> None:
    up()
    desired = plan(*map(peer, range(PEERS)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> None:
        reconciler = Reconciler()
        counter = asyncio.create_task(count())
        report = await reconciler.apply(desired)
        assert not report.problems
        assert len(report.changes) == 3 * PEERS + 2  # the device, and its address
        assert turns > 3 * PEERS // BATCH
        assert not await reconciler.differences(desired)
        sh("ip link set flannel.1 down; ip link set flannel.1 up; ip neighbour flush dev flannel.1")
        report = await reconciler.apply(desired)
        assert not report.problems
        assert not await reconciler.differences(desired)
        counter.cancel()
        reconciler.close()

    asyncio.run(run())
    assert len(neighbours("flannel.1")) == PEERS
    assert len(forwards("flannel.1")) == PEERS
    assert sum(1 for one in routes().values() if one["dev"] == "flannel.1") == PEERS

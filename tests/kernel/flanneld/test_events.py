"""Which changes of the kernel make the daemon compare again, and that it hears of them at once."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from flanneld.kernel import sieve
from flanneld.kernel.events import GROUPS, Events, Watched
from flanneld.kernel.reconciler import Reconciler
from netlink import events
from netlink.link import RTM_NEWLINK
from tests.kernel.flanneld.scene import apply, differences, plan, settle, up
from tests.kernel.privatens import private, sh
from tests.unit.flanneld.cluster import lease

if TYPE_CHECKING:
    from netlink.nlmsg import Message

CONCERNING = [
    "ip link set flannel.1 down",
    "ip link del flannel.1",
    "ip link set flannel.1 mtu 1300",
    "ip link set eth0 down",
    "ip link del eth0",
    "ip address del 10.244.1.0/32 dev flannel.1",
    "ip address add 192.168.9.77/24 dev eth0",
    "ip link set flannel.1 name other",
    "ip neighbour del 10.244.2.0 dev flannel.1",
    "bridge fdb del 02:00:00:04:00:02 dev flannel.1",
    "ip route del 10.244.2.0/24",
    "ip route add 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
    "ip route add default via 192.168.9.254 metric 5",
    "ip route add default via 192.168.9.254 metric 5 proto dhcp",
]
OTHERS = [
    "ip link add pod type veth peer name host; ip link set pod up; ip link del pod",
    "ip address add 127.0.0.9/8 dev lo",
    "ip neighbour add 192.168.77.7 lladdr 02:00:00:00:00:77 dev far nud reachable",
    "ip route add 203.0.113.0/24 dev far proto bird",
    "ip route add 203.0.113.0/24 dev far proto static",
    "ip neighbour add 192.168.9.88 lladdr 02:00:00:00:00:88 dev eth0 nud reachable",
    "ip link set far mtu 1400; ip link set far mtu 1500",
]


def pending(source: events.Events) -> list[Message]:
    messages: list[Message] = []
    while received := source.wait(0):
        messages += received
    return messages


def heard(command: str) -> bool:
    """Whether any of the messages that a command causes concerns the daemon.

    What the kernel's filter lets through is exactly that.
    """
    settle(plan(lease(2)))
    eth0, device = (socket.if_nametoindex(name) for name in ("eth0", "flannel.1"))
    watched = Watched(frozenset({eth0, device}), frozenset(), frozenset({device}))
    sh("while ip address show tentative | grep -q tentative; do sleep 0.1; done")
    source, filtered = events.Events(GROUPS), events.Events(GROUPS)
    program = sieve.program(watched.indexes, watched.tables, all_links=False)
    assert program is not None
    sieve.attach(filtered.fileno(), program)
    sh(command)
    messages = pending(source)
    assert messages
    concerning = [message for message in messages if watched.concerns(message)]
    assert pending(filtered) == concerning
    return bool(concerning)


@pytest.mark.parametrize("command", CONCERNING)
@private
def test_concerning(command: str) -> None:
    up()
    assert heard(command)


@pytest.mark.parametrize("command", OTHERS)
@private
def test_of_others(command: str) -> None:
    up()
    assert not heard(command)


@private
def test_events_that_were_lost_count_as_heard() -> None:
    """The kernel drops what a full buffer has no room for, and says so once."""
    up()

    async def run() -> None:
        changed = asyncio.Event()
        hearing = Events(changed.set)
        hearing.open()
        try:
            # What comes and goes by another name is heard of, and concerns nobody.
            hearing.watch(Watched(names=frozenset({"another"})))
            await changed.wait()
            changed.clear()
            assert hearing._source is not None
            hearing._source._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sh("for i in $(seq 50); do ip link set eth0 down; ip link set eth0 up; done")
            async with asyncio.timeout(60):
                await changed.wait()
        finally:
            hearing.close()

    asyncio.run(run())


@private
def test_a_link_that_comes_anew_is_known_by_name() -> None:
    up()
    apply(plan(lease(2)))
    source = events.Events(GROUPS)
    sh("ip link del eth0")
    pending(source)
    program = sieve.program([7], [], all_links=True)
    assert program is not None
    sieve.attach(source.fileno(), program)
    sh("ip link add eth0 type veth peer name far2; ip address add 192.0.2.1/24 dev far2")
    found = pending(source)
    assert {message.type for message in found} == {RTM_NEWLINK}
    assert any(map(Watched(frozenset(), frozenset({"eth0"})).concerns, found))


def test_too_many_links_for_a_filter() -> None:
    assert sieve.program(range(101), [], all_links=False) is None
    assert sieve.program(range(100), [], all_links=False)


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set flannel.1 down; ip link set flannel.1 up",
        "ip link del flannel.1",
        "ip neighbour flush dev flannel.1 nud permanent",
        "bridge fdb del 02:00:00:04:00:02 dev flannel.1",
        "ip route flush proto 244",
    ],
)
@private
def test_repaired_by_events_alone(damage: str) -> None:
    """No timer: each call of `changed` is one comparison, until nothing differs."""
    up()
    desired = plan(lease(2), lease(3))

    async def run() -> None:
        reconciler = Reconciler()
        await reconciler.apply(desired)
        wanted = asyncio.Event()
        hearing = Events(wanted.set)
        hearing.open()
        hearing.watch(reconciler.watched)
        try:
            await asyncio.to_thread(sh, damage)
            async with asyncio.timeout(50):
                while await reconciler.differences(desired):
                    await wanted.wait()
                    wanted.clear()
                    await reconciler.apply(desired)
                    hearing.watch(reconciler.watched)
        finally:
            hearing.close()
            reconciler.close()

    asyncio.run(run())
    assert not differences(desired)

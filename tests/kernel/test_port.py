"""Waiting for the bridge's port: an ADD ends when frames pass, not before."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from typing import Any

import pytest

from cni.errors import KERNEL_REFUSED, CNIError
from cni_flannel.bridge import steps_port
from cni_flannel.bridge.ends import Ends
from cni_flannel.bridge.steps_port import AwaitPort
from netlink import rtnl
from netlink.events import RTMGRP_LINK, Events
from tests.kernel.privatens import needs_root, private, sh
from tests.kernel.world import World, ip
from tests.unit.fakes import args


def state_of_port() -> Any:
    """Return what bridge(8) says of the only port."""
    (port,) = json.loads(sh("bridge -j link show dev veth1"))
    return port["state"]


def wait(world: World) -> None:
    with Ends.surviving(args({}, netns=f"/proc/{world.pod}/ns/net")) as ends:
        AwaitPort("veth1", world.bridge).apply(ends)


def raise_pod(world: World) -> None:
    world.inside.execute(rtnl.set_link(world.eth0.index, up=True))


def ready_world() -> World:
    world = World()
    world.host.execute(
        rtnl.set_link(world.bridge.index, up=True), rtnl.set_link(world.veth.index, up=True)
    )
    assert state_of_port() == "disabled"
    return world


@needs_root
@private
def test_the_port_forwards_and_the_bridge_has_its_carrier() -> None:
    world = ready_world()
    raise_pod(world)
    wait(world)
    assert state_of_port() == "forwarding"
    (bridge,) = ip("link show dev cni0")
    assert bridge["operstate"] == "UP"


@needs_root
@private
def test_it_waits_until_the_carrier_comes() -> None:
    world = ready_world()
    timer = threading.Timer(0.3, raise_pod, [world])
    before = os.listdir("/proc/self/fd")
    timer.start()
    wait(world)
    timer.join()
    assert os.listdir("/proc/self/fd") == before
    assert state_of_port() == "forwarding"


@needs_root
@private
def test_a_port_that_never_forwards_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ready_world()
    monkeypatch.setattr(steps_port, "PORT_TIMEOUT_S", 0.2)
    with pytest.raises(CNIError, match="port veth1 of cni0 does not forward") as caught:
        wait(world)
    assert caught.value.code == KERNEL_REFUSED


@needs_root
@private
def test_it_does_not_wait_for_a_spanning_tree() -> None:
    world = ready_world()
    sh("ip link set cni0 type bridge stp_state 1")
    raise_pod(world)
    wait(world)
    assert state_of_port() in {"listening", "learning"}


@needs_root
@private
def test_a_bridge_that_was_up_before_its_first_port() -> None:
    world = World()
    sh("ip link add br1 type bridge && ip link set br1 up && ip link set veth1 up master br1")
    raise_pod(world)
    world.bridge = world.found("br1")
    wait(world)
    assert state_of_port() == "forwarding"


@needs_root
@private
def test_messages_that_were_lost_count_as_a_change() -> None:
    heard = Events(RTMGRP_LINK)
    buffer = socket.socket(fileno=os.dup(heard.fileno()))
    buffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sh("for n in $(seq 40); do ip link add br$n type bridge; done")
    lost = buffer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert lost == errno.ENOBUFS
    sh("for n in $(seq 40); do ip link del br$n; done")
    while heard.stirred(0.001):
        pass  # none of these raises

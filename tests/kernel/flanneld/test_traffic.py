"""Packets between two nodes that the reconciler programmed, by each backend and family."""

from __future__ import annotations

from functools import partial

import pytest

from tests.kernel.flanneld.scene import link, plan, settle
from tests.kernel.privatens import inside, new_pod, private, sh
from tests.unit.flanneld.cluster import lease

POD = {"4": "10.244.{}.1/32", "6": "fd44:0:0:{}::1/128"}
HEADERS = {"4": 28, "6": 48}  # of IP and ICMP


def join(n: int) -> None:
    """Make this namespace node N: its eth0 is there, and a pod's address lives on lo."""
    sh(
        "sysctl -qw net.ipv6.conf.eth0.accept_dad=0;"  # or its first packets have no source
        f"ip link set lo up; ip address add 192.168.9.{n}/24 dev eth0;"
        f"ip address add fd09::{n}/64 dev eth0 nodad; ip link set eth0 up;"
        f"ip address add {POD['4'].format(n)} dev lo; ip address add {POD['6'].format(n)} dev lo"
    )


def program(n: int, kinds: dict[int, str], families: str) -> None:
    """Settle node N among nodes that publish these backends."""
    peers = [lease(m, kinds[m], families=families) for m in kinds if m != n]
    settle(plan(*peers, n=n, kind=kinds[n], families=families))


def assert_reached(families: str, mtus: dict[str, int]) -> None:
    """The other node's pod answers; the largest packet passes whole, one byte more does not."""
    for family in families:
        where, source = (POD[family].format(n).split("/")[0] for n in (2, 1))
        size = mtus[family] - HEADERS[family]
        ping = f"ping -{family} -c 1 -W 10 -I {source} -M do {where}"
        sh(f"{ping} -s {size}")
        sh(f"! {ping} -W 1 -s {size + 1} >/dev/null 2>&1")


def assert_answered(families: str) -> None:
    for family in families:
        where, source = (POD[family].format(n).split("/")[0] for n in (2, 1))
        sh(f"ping -{family} -c 3 -i 0.05 -W 10 -I {source} {where} | grep ' 0% packet loss'")


@pytest.mark.parametrize("families", ["4", "6", "46"])
@pytest.mark.parametrize(
    ("kinds", "mtus"),
    [
        ({1: "vxlan", 2: "vxlan"}, {"4": 1450, "6": 1430}),
        ({1: "host-gw", 2: "host-gw"}, {"4": 1500, "6": 1500}),
        ({1: "host-gw", 2: "vxlan"}, {"4": 1500, "6": 1500}),
    ],
    ids=["vxlan", "host-gw", "one of each"],
)
@private
def test_reached(kinds: dict[int, str], mtus: dict[str, int], families: str) -> None:
    far = new_pod()
    sh(f"ip link add eth0 type veth peer name eth0 netns {far}")
    inside(far, partial(join, 2))
    join(1)
    inside(far, partial(program, 2, kinds, families))
    program(1, kinds, families)
    assert_reached(families, mtus)


@private
def test_a_change_from_vxlan_to_host_gw_node_by_node() -> None:
    """No packet is lost, not even while the other node has not read yet what this one publishes."""
    far = new_pod()
    sh(f"ip link add eth0 type veth peer name eth0 netns {far}")
    inside(far, partial(join, 2))
    join(1)
    kinds = {1: "vxlan", 2: "vxlan"}
    inside(far, partial(program, 2, kinds, "46"))
    program(1, kinds, "46")
    assert_reached("46", {"4": 1450, "6": 1430})
    kinds[1] = "host-gw"
    program(1, kinds, "46")
    assert_answered("46")
    inside(far, partial(program, 2, kinds, "46"))
    assert_reached("46", {"4": 1500, "6": 1500})
    kinds[2] = "host-gw"
    inside(far, partial(program, 2, kinds, "46"))
    assert_answered("46")
    program(1, kinds, "46")
    assert_reached("46", {"4": 1500, "6": 1500})
    assert link("flannel.1") is None

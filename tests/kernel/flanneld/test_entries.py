"""Neighbours, FDB entries and routes: programmed, repaired, exchanged; others' are left alone."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from tests.kernel.flanneld.scene import (
    apply,
    forwards,
    link,
    neighbours,
    plan,
    route,
    routes,
    settle,
    up,
)
from tests.kernel.privatens import private, sh
from tests.unit.flanneld.cluster import lease

RTN_BLACKHOLE = 6  # `ip -N` numbers this, too
VIA_TUNNEL = "10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 244 onlink"
VIA_TUNNEL6 = "fd44:0:0:2::/64 via fd44:0:0:2:: dev flannel-v6.1 proto 244 metric 1024 onlink"
VIA_PEER = "10.244.2.0/24 via 192.168.9.2 dev eth0 proto 244"


def assert_tunnel() -> None:
    assert neighbours("flannel.1") == {"10.244.2.0": "02:00:00:04:00:02"}
    assert forwards("flannel.1") == {("02:00:00:04:00:02", "192.168.9.2")}
    assert route("10.244.2.0/24") == VIA_TUNNEL


@private
def test_a_peer_of_both_families() -> None:
    up()
    settle(plan(lease(2, families="46"), families="46"))
    assert_tunnel()
    assert neighbours("flannel-v6.1") == {"fd44:0:0:2::": "02:00:00:06:00:02"}
    assert forwards("flannel-v6.1") == {("02:00:00:06:00:02", "fd09::2")}
    assert route("fd44:0:0:2::/64").startswith(VIA_TUNNEL6)


@private
def test_host_gw_of_both_families() -> None:
    up()
    settle(plan(lease(2, "host-gw", families="46"), kind="host-gw", families="46"))
    assert route("10.244.2.0/24") == VIA_PEER
    assert route("fd44:0:0:2::/64").startswith("fd44:0:0:2::/64 via fd09::2 dev eth0 proto 244")
    assert link("flannel.1") is None


@private
def test_blackhole_of_the_own_subnet() -> None:
    up()
    settle(plan(families="46", kind="alloc", blackhole=True))
    assert route("10.244.1.0/24") == f"{RTN_BLACKHOLE} 10.244.1.0/24 proto 244"
    assert route("fd44:0:0:1::/64").startswith(f"{RTN_BLACKHOLE} fd44:0:0:1::/64 dev lo proto 244")
    settle(plan(families="46", kind="alloc"))
    assert route("10.244.1.0/24") == ""
    assert route("fd44:0:0:1::/64") == ""


DAMAGE = [
    "ip link set flannel.1 down; ip link set flannel.1 up",
    "ip link del flannel.1",
    "ip neighbour flush dev flannel.1 nud permanent",
    "ip neighbour replace 10.244.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
    "ip neighbour replace 10.244.2.0 lladdr 02:00:00:04:00:02 dev flannel.1 nud reachable",
    "ip neighbour add 10.244.9.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
    "bridge fdb del 02:00:00:04:00:02 dev flannel.1",
    "bridge fdb replace 02:00:00:04:00:02 dev flannel.1 dst 192.168.9.99",
    "bridge fdb replace 02:00:00:04:00:02 dev flannel.1 dst 192.168.9.2 port 9999",
    "bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 192.168.9.99",
    "ip route del 10.244.2.0/24",
    "ip route replace 10.244.2.0/24 via 192.168.9.254 dev eth0 proto 244",
    "ip route replace 10.244.2.0/24 dev flannel.1 proto boot",
    "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 244 mtu 1000",
    "ip route prepend 10.244.2.0/24 via 10.244.3.0 dev flannel.1 onlink proto 244",
    "ip route append 10.244.2.0/24 via 10.244.3.0 dev flannel.1 onlink",
    "ip route add 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink",
    "ip route add 10.244.9.0/24 via 192.168.9.254 proto 244",
    "ip route add 10.244.2.0/24 via 192.168.9.254 proto 244 metric 50",
    "ip route add blackhole 10.244.9.0/24 proto 244",
    "ip route add 172.31.0.0/24 via 172.31.0.0 dev flannel.1 onlink",
]


@pytest.mark.parametrize("damage", DAMAGE)
@private
def test_repaired(damage: str) -> None:
    up()
    desired = plan(lease(2))
    settle(desired)
    whole = routes()
    sh(damage)
    assert apply(desired).changes
    settle(desired)
    assert_tunnel()
    assert routes() == whole


DAMAGE6 = [
    "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
    "ip -6 route del fd44:0:0:2::/64",
    "ip -6 route replace fd44:0:0:2::/64 via fd09::9 dev eth0 proto 244",
    "ip -6 route append fd44:0:0:2::/64 via fd44:0:0:3:: dev flannel-v6.1 onlink",
    "ip -6 route add fd44:0:0:9::/64 via fd44:0:0:9:: dev flannel-v6.1 onlink",
    "ip -6 route add fd44:0:0:9::/64 via fd09::9 proto 244",
    "ip neighbour flush dev flannel-v6.1 nud permanent",
]


@pytest.mark.parametrize("damage", DAMAGE6)
@private
def test_repaired_ipv6(damage: str) -> None:
    up()
    desired = plan(lease(2, families="6"), families="6")
    settle(desired)
    whole = routes(6)
    sh(damage)
    assert apply(desired).changes
    settle(desired)
    assert routes(6) == whole
    assert neighbours("flannel-v6.1") == {"fd44:0:0:2::": "02:00:00:06:00:02"}


@private
def test_a_peer_moves_and_a_peer_goes() -> None:
    up()
    settle(plan(lease(2), lease(3)))
    moved = lease(
        2,
        public_ip=IPv4Address("192.168.9.22"),
        backend_data={"VNI": 1, "VtepMAC": "02:00:00:04:00:22"},
    )
    settle(plan(moved))
    assert neighbours("flannel.1") == {"10.244.2.0": "02:00:00:04:00:22"}
    assert forwards("flannel.1") == {("02:00:00:04:00:22", "192.168.9.22")}
    assert set(routes()) == {"192.168.9.0/24", "10.244.2.0/24"}


@private
def test_a_peer_changes_its_backend_and_changes_back() -> None:
    up()
    for _ in range(2):
        settle(plan(lease(2)))
        assert_tunnel()
        settle(plan(lease(2, "host-gw")))
        assert route("10.244.2.0/24") == VIA_PEER
        assert not neighbours("flannel.1")
        assert not forwards("flannel.1")


@private
def test_this_node_changes_its_backend_and_changes_back() -> None:
    up()
    for _ in range(2):
        settle(plan(lease(2)))
        assert_tunnel()
        settle(plan(lease(2), kind="host-gw"))
        assert route("10.244.2.0/24") == VIA_PEER
        assert link("flannel.1") is not None  # the peer may still send to it
        settle(plan(lease(2, "host-gw"), kind="host-gw"))
        assert link("flannel.1") is None


@private
def test_one_bad_peer_holds_up_no_other() -> None:
    """Its address has just gone off the link, and the kernel refuses it as a gateway."""
    up()
    sh("ip address del 192.168.9.1/24 dev eth0; ip address add 192.168.9.1/25 dev eth0")
    bad = lease(3, "host-gw", public_ip=IPv4Address("192.168.9.177"))
    report = apply(plan(lease(2, "host-gw"), bad, lease(4, "host-gw"), kind="host-gw"))
    (problem,) = report.problems
    assert problem.startswith("add route 10.244.3.0/24 via 192.168.9.177 dev eth0: ")
    assert [str(change) for change in report.changes if "10.244.3.0" in str(change)] == []
    assert {"10.244.2.0/24", "10.244.4.0/24"} < set(routes())
    assert "10.244.3.0/24" not in routes()


@private
def test_the_interface_flaps() -> None:
    up()
    for kind in ("host-gw", "vxlan"):
        desired = plan(lease(2, kind), kind=kind)
        settle(desired)
        whole = routes()
        sh("ip link set eth0 down; ip link set eth0 up")
        settle(desired)
        assert routes() == whole


@private
def test_a_link_that_is_down_is_told_once() -> None:
    up()
    desired = plan(*(lease(n, "host-gw") for n in range(2, 50)), kind="host-gw")
    settle(desired)
    sh("ip link set eth0 down")
    assert apply(desired).problems == ("eth0 is down: 48 entries wait for it",)
    sh("ip link set eth0 up")
    settle(desired)


# ------------------------------------------------------------------------------ of the Go daemon


@private
def test_gos_state_is_taken_over_and_its_stale_entries_go() -> None:
    up()
    sh(
        "ip link add flannel.1 address 02:00:00:04:00:01 mtu 1450 type vxlan id 1 dev eth0"
        " local 192.168.9.1 dstport 8472 nolearning;"
        "ip address add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up"
    )
    for n in (2, 3):
        sh(
            f"ip neighbour replace 10.244.{n}.0 lladdr 02:00:00:04:00:0{n} dev flannel.1"
            f" nud permanent;"
            f"bridge fdb replace 02:00:00:04:00:0{n} dev flannel.1 dst 192.168.9.{n} permanent;"
            f"ip route replace 10.244.{n}.0/24 via 10.244.{n}.0 dev flannel.1 onlink"
        )
    report = settle(plan(lease(2)))
    assert_tunnel()
    assert set(routes()) == {"192.168.9.0/24", "10.244.2.0/24"}
    replaced = [str(change) for change in report.changes if change.action == "change"]
    assert replaced[-1] == "~ route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"


@private
def test_gos_host_gw_route_of_a_lease_is_taken_over() -> None:
    up()
    sh("ip route add 10.244.2.0/24 via 192.168.9.177 dev eth0")
    settle(plan(lease(2, "host-gw"), kind="host-gw"))
    assert route("10.244.2.0/24") == VIA_PEER


@private
def test_gos_device_goes_with_a_change_to_host_gw() -> None:
    up()
    sh(
        "ip link add flannel.1 type vxlan id 1 dev eth0 local 192.168.9.1 dstport 8472;"
        "ip address add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up;"
        "ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"
    )
    settle(plan(lease(2, "host-gw"), kind="host-gw"))
    assert route("10.244.2.0/24") == VIA_PEER
    assert link("flannel.1") is None


# -------------------------------------------------------------------------------------- of others

FOREIGN = [
    "ip route add 10.244.9.0/24 via 192.168.9.254",
    "ip route add 10.244.9.0/24 via 192.168.9.254 proto static",
    "ip route add 10.244.9.0/24 via 192.168.9.254 proto bird table 100",
    "ip route add 10.244.2.0/24 via 192.168.9.254 metric 50",
    "ip route add 10.244.2.7 via 192.168.9.254",
    "ip route add 172.31.0.0/24 via 192.168.9.254 proto 244",
    "ip route add 172.31.0.0/24 dev flannel.1",
    "ip link add cni0 type bridge; ip link set cni0 up; ip address add 10.244.1.1/24 dev cni0",
    "ip link add flannel.9 type vxlan id 9 dev eth0 local 192.168.9.1 dstport 8472",
    (
        "ip link add flannel.9 type vxlan id 9 dev eth0 local 192.168.9.1 dstport 8472;"
        "ip link set flannel.9 alias 'flanneld 10.99.0.0/16' up;"
        "ip address add 10.99.1.0/32 dev flannel.9;"
        "ip neighbour add 10.99.2.0 lladdr 02:00:00:00:00:99 dev flannel.9 nud permanent;"
        "bridge fdb add 02:00:00:00:00:99 dev flannel.9 dst 192.168.9.9;"
        "ip route add 10.99.2.0/24 via 10.99.2.0 dev flannel.9 onlink proto 244"
    ),
    "ip neighbour add 192.168.9.7 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    "ip neighbour add 10.244.9.9 lladdr 02:00:00:00:00:99 dev flannel.1 nud noarp",
]


@pytest.mark.parametrize("foreign", FOREIGN)
@private
def test_others_are_left_alone(foreign: str) -> None:
    up()
    settle(plan(lease(2)))
    sh(foreign)
    whole = snapshot()
    settle(plan(lease(2)))
    assert snapshot() == whole
    settle(plan(lease(2), lease(3)))
    settle(plan(lease(2)))
    assert snapshot() == whole


def snapshot() -> dict[str, object]:
    told = {
        command: sh(command)
        for command in (
            "ip -4 route show table all | sed 's/ linkdown//'",
            "ip -6 route | grep -v fe80 || true",
            "ip neighbour show nud permanent nud noarp | grep -Ev '^(ff02|224)' | sort",
            "bridge fdb | grep -Ev '^(33:33|01:00:5e)' | sort",  # groups: joined when links come up
        )
    }
    names = ("lo", "eth0", "flannel.1", "flannel.9", "cni0")
    links = [found for name in names if (found := link(name)) is not None]
    kept = ("ifname", "ifindex", "address", "mtu", "ifalias")
    return {**told, "links": [{key: one.get(key) for key in kept} for one in links]}


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        ("10.244.2.0/24 via 192.168.9.254 dev eth0 proto static", ""),
        ("10.244.2.0/24 dev far proto boot", ""),
        ("blackhole 10.244.2.0/24", "one that leads nowhere"),
        ("unreachable 10.244.2.0/24 proto bird", "one that leads nowhere"),
    ],
)
@private
def test_the_route_of_another_is_named_not_replaced(foreign: str, named: str) -> None:
    up()
    sh(f"ip route add {foreign}")
    report = apply(plan(lease(2), lease(3)))
    (problem,) = report.problems
    assert f"another route has this destination: {named or foreign}" in problem
    assert route("10.244.2.0/24")
    assert "flannel.1" not in route("10.244.2.0/24")
    assert "10.244.3.0/24" in routes()
    sh("ip route del 10.244.2.0/24")
    settle(plan(lease(2), lease(3)))


@private
def test_a_wider_route_of_another_that_ipv6_lets_be_in_the_way() -> None:
    up()
    sh("ip -6 route add fd44::/48 via fd09::fe proto static")
    (problem,) = apply(plan(lease(2, families="6"), families="6")).problems
    assert "By way of fd44::/48 via fd09::fe dev eth0 proto static the kernel reaches" in problem
    sh("ip -6 route del fd44::/48")
    settle(plan(lease(2, families="6"), families="6"))


@private
def test_a_route_of_another_beside_ours_survives_a_change_of_ours() -> None:
    up()
    settle(plan(lease(2, "host-gw"), kind="host-gw"))
    sh("ip route append 10.244.2.0/24 via 192.168.9.254 proto static")
    moved = lease(2, "host-gw", public_ip=IPv4Address("192.168.9.22"))
    settle(plan(moved, kind="host-gw"))
    assert sh("ip -N route show exact 10.244.2.0/24").split("\n")[:2] == [
        "10.244.2.0/24 via 192.168.9.22 dev eth0 proto 244 ",
        "10.244.2.0/24 via 192.168.9.254 dev eth0 proto 4 ",
    ]

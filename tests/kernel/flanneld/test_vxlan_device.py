"""The VXLAN device: made as Go makes it, reused, mended, replaced, and what is in its way."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.kernel.flanneld.scene import addresses, apply, link, neighbours, plan, routes, settle, up
from tests.kernel.privatens import private, sh
from tests.unit.flanneld.cluster import IDENTITY, lease

GO = (
    "ip link add flannel.1 address 02:00:00:04:00:01 mtu 1450 type vxlan id 1 dev eth0"
    " local 192.168.9.1 dstport 8472 nolearning;"
    "ip address add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up"
)


def device(name: str = "flannel.1") -> dict[str, Any]:
    found = link(name)
    assert found is not None
    return found


@private
def test_made() -> None:
    up()
    settle(plan())
    made = device()
    data = made["linkinfo"]["info_data"]
    assert made["address"] == IDENTITY.mac
    assert made["mtu"] == 1450
    assert "UP" in made["flags"]
    assert made["ifalias"] == "flanneld 10.244.0.0/16"
    assert (data["id"], data["port"], data["link"]) == (1, 8472, "eth0")
    assert data["local"] == "192.168.9.1"
    assert not data["learning"]
    assert "gbp" not in data
    assert addresses("flannel.1") == {"10.244.1.0/32"}
    assert sh("cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra").strip() == "0"


@private
def test_both_families_share_vni_and_port() -> None:
    up()
    settle(plan(families="46", VNI=7, Port=4789))
    data = device("flannel-v6.7")["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["local6"]) == (7, 4789, "fd09::1")
    assert device("flannel-v6.7")["mtu"] == 1430
    assert device("flannel.7")["mtu"] == 1450
    assert addresses("flannel-v6.7") == {"fd44:0:0:1::/128"}


@private
def test_keys() -> None:
    up()
    settle(plan(GBP=True, Learning=True, MTU=1400))
    made = device()
    assert made["linkinfo"]["info_data"]["gbp"]
    assert made["linkinfo"]["info_data"]["learning"]
    assert made["mtu"] == 1350


@private
def test_one_of_go_is_taken_over_as_it_is() -> None:
    up()
    sh(GO)
    index = device()["ifindex"]
    settle(plan())
    assert device()["ifindex"] == index
    assert device()["ifalias"] == "flanneld 10.244.0.0/16"


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set flannel.1 mtu 1300",
        "ip link set flannel.1 address 02:00:00:00:04:99",
        "ip link set flannel.1 down",
        "ip link set flannel.1 alias ''",
        "echo 1 > /proc/sys/net/ipv6/conf/flannel.1/accept_ra",
        "ip address del 10.244.1.0/32 dev flannel.1",
        "ip address add 10.244.77.0/32 dev flannel.1",
    ],
)
@private
def test_mended_in_place(damage: str) -> None:
    up()
    desired = plan(lease(2))
    settle(desired)
    before = device()
    sh(damage)
    assert apply(desired).changes
    settle(desired)
    after = device()
    for counted in ("stats64", "stats"):
        before.pop(counted, None)
        after.pop(counted, None)
    assert after == before
    assert addresses("flannel.1") == {"10.244.1.0/32"}


@private
def test_a_foreign_address_outside_the_network_stays() -> None:
    up()
    desired = plan()
    settle(desired)
    sh("ip address add 172.31.0.1/30 dev flannel.1")
    settle(desired)
    assert addresses("flannel.1") == {"10.244.1.0/32", "172.31.0.1/30"}


ALIKE = "ip link add flannel.1 type vxlan id 1 dev eth0 local 192.168.9.1 dstport 8472 nolearning"


@pytest.mark.parametrize(
    ("there", "reused"),
    [
        (ALIKE, True),
        (ALIKE.replace("id 1", "id 9"), False),
        (ALIKE.replace("192.168.9.1", "192.168.9.9"), False),
        (ALIKE.replace("dev eth0", "dev far"), False),
        (ALIKE.replace("nolearning", "learning"), False),
        (ALIKE + " gbp", False),
        (ALIKE + " l2miss", False),
        (ALIKE + " l3miss", False),
        (ALIKE + " group 239.1.1.1", False),
        ("ip link add flannel.1 type vxlan external dstport 8472", False),
    ],
)
@private
def test_one_of_other_parameters_is_replaced(there: str, reused: bool) -> None:  # noqa: FBT001
    up()
    sh(there)
    index = device()["ifindex"]
    settle(plan(lease(2)))
    assert (device()["ifindex"] == index) is reused


@pytest.mark.parametrize(
    ("name", "address", "stale"),
    [
        ("flannel.7", "10.244.7.0/32", True),
        ("flannel.7", "10.244.7.1/24", False),  # a flannel's has no prefix
        ("flannel.7", "10.9.7.0/32", False),
        ("flannel.8", "10.244.7.0/32", False),
        ("mine.7", "10.244.7.0/32", False),
    ],
)
@private
def test_what_is_not_provably_a_flannel_s_stays(name: str, address: str, stale: bool) -> None:  # noqa: FBT001
    up()
    sh(f"ip link add {name} type vxlan id 7 dev eth0 dstport 8479; ip link set {name} up")
    sh(f"ip address add {address} dev {name}")
    settle(plan(lease(2)))
    assert (link(name) is None) is stale


@private
def test_another_port_is_another_device() -> None:
    up()
    settle(plan(Port=8472))
    settle(plan(Port=4789))
    assert device()["linkinfo"]["info_data"]["port"] == 4789


@pytest.mark.parametrize("wanted", [True, False])
@private
def test_checksum_offload(wanted: bool) -> None:  # noqa: FBT001
    up()
    settle(plan(TxChecksumOffload=not wanted))
    settle(plan(TxChecksumOffload=wanted))
    (line,) = (
        line for line in sh("ethtool -k flannel.1").splitlines() if "tx-checksum-ip-generic" in line
    )
    assert line.split()[1] == ("on" if wanted else "off")


@private
def test_checksum_offload_that_nobody_configured_is_let_be() -> None:
    up()
    settle(plan())
    sh("ethtool -K flannel.1 tx-checksum-ip-generic off")
    settle(plan())
    assert "tx-checksum-ip-generic: off" in sh("ethtool -k flannel.1")


@private
def test_mending_the_mtu_leaves_the_neighbours_alone() -> None:
    up()
    settle(plan(lease(2)))
    sh("ip link set flannel.1 mtu 1300")
    (change,) = settle(plan(lease(2))).changes
    assert str(change).endswith("(mtu 1300 -> 1450)")


@private
def test_a_setting_that_cannot_be_made_is_a_warning() -> None:
    up()
    sh("mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys")
    report = apply(plan(lease(2)))
    assert not report.problems
    assert report.warnings == (
        (
            "flannel.1: net/ipv6/conf/flannel.1/accept_ra is 1 and cannot be set to 0:"
            " Read-only file system"
        ),
    )
    again = apply(plan(lease(2)))
    assert not again.changes
    assert again.warnings == report.warnings


# ----------------------------------------------------------------------------- what is in the way


@pytest.mark.parametrize(
    ("holder", "named"),
    [
        (
            "ip link add other type vxlan id 1 dev eth0 local 192.168.9.1 dstport 8472",
            "device other type vxlan id 1 dstport 8472",
        ),
        (
            "ip link add cilium type vxlan external dstport 8472; ip link set cilium up",
            "device cilium type vxlan id 0 dstport 8472 external",
        ),
    ],
)
@private
def test_the_holder_of_vni_or_port_is_named_and_left_alone(holder: str, named: str) -> None:
    up()
    sh(holder)
    report = apply(plan(lease(2)))
    first, waiting = report.problems
    assert named in first
    assert "delete that one, or choose another VNI or Port" in first
    assert waiting.startswith("flannel.1 ")
    assert link(named.split()[1]) is not None
    sh(f"ip link del {named.split()[1]}")
    settle(plan(lease(2)))


@private
def test_a_program_on_the_port_is_told() -> None:
    up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 8472))
        problems = apply(plan()).problems
        assert "another program has UDP port 8472" in problems[0]
    settle(plan())


OF_OTHERS = [
    (
        "ip link add flannel.1 type bridge",
        "flannel.1 exists and is bridge, not a VXLAN device",
    ),
    (
        f"{GO.replace('1450', '1400')}; ip link set flannel.1 alias 'flanneld 10.99.0.0/16'",
        "flannel.1 has the alias 'flanneld 10.99.0.0/16': it belongs to another network",
    ),
]


@pytest.mark.parametrize(("there", "named"), OF_OTHERS)
@private
def test_a_link_of_others_is_named_and_left_alone(there: str, named: str) -> None:
    up()
    sh(
        f"{there}; ip link set flannel.1 up; ip address add 10.244.77.0/32 dev flannel.1;"
        "ip neighbour add 10.244.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent"
    )
    before = (
        sh("ip address show dev flannel.1 scope global"),
        sh("bridge fdb show dev flannel.1"),
        neighbours("flannel.1"),
        set(routes()),
    )
    (problem,) = apply(plan(lease(2))).problems
    assert named in problem
    assert before == (
        sh("ip address show dev flannel.1 scope global"),
        sh("bridge fdb show dev flannel.1"),
        neighbours("flannel.1"),
        set(routes()),
    )


@private
def test_an_alias_that_is_no_mark_is_nobodys() -> None:
    up()
    sh(f"{GO}; ip link set flannel.1 alias 'the pods'")
    settle(plan(lease(2)))
    assert device()["ifalias"] == "flanneld 10.244.0.0/16"


@private
def test_without_its_underlay() -> None:
    up()
    desired = plan(lease(2))
    settle(desired)
    sh("ip link del eth0")
    problems = apply(desired).problems
    assert problems[0] == "flannel.1: its underlay eth0 does not exist"
    up()
    settle(desired)

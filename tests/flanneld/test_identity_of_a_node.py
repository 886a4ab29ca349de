"""Which lease is a node's, when addresses move between nodes and over time."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import Scene, eventually
from tests.kernel.privatens import needs_root, private

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_root, pytest.mark.timeout(600)]

VIP = "192.168.64.100"


def published(scene: Scene) -> dict[str, str]:
    """Public addresses by key."""
    return {
        key: value.partition('"PublicIP":"')[2].partition('"')[0]
        for key, value in scene.etcd.leases().items()
    }


@private
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
@pytest.mark.parametrize("length", [24, 32])
def test_a_virtual_address_is_no_node_s(tmp_path: Path, backend: str, length: int) -> None:
    """It was there before the daemon; it fails over; the daemons restart on either side."""
    scene = Scene(tmp_path, Backend={"Type": backend})
    one, two = scene.nodes
    for node in scene.nodes:  # of DHCP, and not the first
        node.sh("ip address flush dev eth0 scope global")
        node.sh("sysctl -qw net.ipv4.conf.all.promote_secondaries=1")
        if node is one:
            node.sh(f"ip address add {VIP}/{length} dev eth0")
        node.sh(f"ip address add {node.address}/24 dev eth0 valid_lft 9000 preferred_lft 9000")
        node.sh("ip route replace default via 192.168.64.254")
    scene.start()
    wanted = {
        f"{node.env['FLANNEL_SUBNET'].removesuffix('.1/24')}.0-24": node.address
        for node in scene.nodes
    }
    assert published(scene) == wanted
    one.sh(f"ip address del {VIP}/{length} dev eth0")
    two.sh(f"ip address add {VIP}/{length} dev eth0")
    for node in scene.nodes:
        node.end()
    scene.start()
    assert published(scene) == wanted


@private
def test_an_identity_that_another_node_has_published_is_never_taken(tmp_path: Path) -> None:
    """A virtual address that an older daemon took for its node's: it has moved here since."""
    scene = Scene(tmp_path, 2)
    one, two = scene.nodes
    one.start("--public-ip", VIP, "--iface", "eth0")
    one.ready()
    two.sh("ip address flush dev eth0 scope global")
    two.sh(f"ip address add {VIP}/24 dev eth0")
    two.sh(f"ip address add {two.address}/24 dev eth0")
    two.sh("ip route replace default via 192.168.64.254")
    two.start()
    two.ready()
    assert sorted(published(scene).values()) == [VIP, two.address]


@private
@pytest.mark.parametrize("lost", ["nothing", "reboot", "reboot, Go's device"])
@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_an_address_that_changes_while_it_is_stopped(
    tmp_path: Path, backend: str, lost: str
) -> None:
    """The node keeps its subnet, and the others reach it at once."""
    scene = Scene(tmp_path, Backend={"Type": backend})
    scene.start()
    one, two = scene.nodes
    before = one.env["FLANNEL_SUBNET"]
    one.end()
    if lost != "nothing":
        shutil.rmtree(one.folder / "run")
        if backend == "vxlan":
            one.sh("ip link del flannel.1")
    one.sh(f"ip address del {one.address}/24 dev eth0")
    one.sh("ip address add 192.168.64.77/24 dev eth0")
    one.sh("ip route replace default via 192.168.64.254")
    one.start()
    one.ready()
    assert one.env["FLANNEL_SUBNET"] == before
    assert sorted(published(scene).values()) == ["192.168.64.2", "192.168.64.77"]
    if backend in {"vxlan", "udp"}:
        eventually("the other reaches it", lambda: two.reaches(one.base))
    else:
        subnet = before.replace(".1/24", ".0/24")
        eventually("its route", lambda: two.routes("eth0").get(subnet) == "192.168.64.77")
    assert "192.168.64" not in two.get("readyz")  # nothing is wrong with any peer


@private
@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_two_nodes_with_each_other_s_address(tmp_path: Path, backend: str) -> None:
    """As a DHCP server may give them after an outage: the first to come is ready by itself."""
    scene = Scene(tmp_path, Backend={"Type": backend})
    scene.start()
    one, two = scene.nodes
    before = [node.env["FLANNEL_SUBNET"] for node in scene.nodes]
    for node, other in ((one, two), (two, one)):
        node.end()
        node.sh(f"ip address del {node.address}/24 dev eth0")
        node.sh(f"ip address add {other.address}/24 dev eth0")
        node.sh("ip route replace default via 192.168.64.254")
    one.start()
    one.ready()
    two.start()
    two.ready()
    assert [node.env["FLANNEL_SUBNET"] for node in scene.nodes] == before
    if backend == "host-gw":
        subnet = before[1].replace(".1/24", ".0/24")
        eventually("its route", lambda: one.routes("eth0").get(subnet) == one.address)
    else:
        eventually("they meet", lambda: one.reaches(two.base) and two.reaches(one.base))
    eventually("nothing is wrong", lambda: "192.168.64" not in one.get("readyz"))


@private
@pytest.mark.parametrize("families", ["46", "6"])
def test_addresses_of_ipv6_that_change_while_it_is_stopped(tmp_path: Path, families: str) -> None:
    scene = Scene(
        tmp_path, EnableIPv4="4" in families, EnableIPv6=True, IPv6Network="fd00:10:244::/56"
    )
    scene.start()
    one, two = scene.nodes
    before = scene.etcd.leases()
    base = one.env["FLANNEL_IPV6_SUBNET"].removesuffix("1/64")
    one.end()
    one.sh(f"ip address del {one.address}/24 dev eth0")
    one.sh("ip address add 192.168.64.77/24 dev eth0")
    one.sh("ip address del fd64::1/64 dev eth0")
    one.sh("ip address add fd64::77/64 dev eth0 nodad")
    one.sh("ip route replace default via 192.168.64.254")
    one.sh("ip -6 route replace default via fd64::254")
    one.start()
    one.ready()
    after = scene.etcd.leases()
    assert after.keys() == before.keys()
    assert '"fd64::77"' in str(after)
    assert '"fd64::1"' not in str(after)
    eventually("the other reaches it", lambda: two.reaches(base))
    assert "fd64" not in two.get("readyz")  # nothing is wrong with any peer


@private
def test_a_virtual_address_of_ipv6_is_no_node_s(tmp_path: Path) -> None:
    """As kube-vip has it; it fails over while the daemons run, and both restart."""
    scene = Scene(tmp_path, EnableIPv4=False, EnableIPv6=True, IPv6Network="fd00:10:244::/56")
    one, two = scene.nodes
    one.sh("ip -6 address flush dev eth0 scope global")
    one.sh("ip address add fd64::100/128 dev eth0 nodad")
    one.sh("ip address add fd64::1/64 dev eth0 nodad valid_lft 9000 preferred_lft 9000")
    one.sh("ip -6 route replace default via fd64::254")
    scene.start()
    before = scene.etcd.leases()
    assert "fd64::100" not in str(before)
    one.sh("ip address del fd64::100/128 dev eth0")
    two.sh("ip address add fd64::100/128 dev eth0 nodad")
    for node in scene.nodes:
        node.end()
    scene.start()
    assert scene.etcd.leases() == before


@private
def test_a_node_that_moved_and_left_its_lease_behind(tmp_path: Path) -> None:
    """As a Go daemon does: the newer of two leases with one MAC is the one that is reached."""
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    left = one.base
    one.end()
    own = scene.etcd.leases()[f"{left}-24"]
    one.start()
    one.ready()
    scene.etcd.delete(f"subnets/{left}-24")
    assert one.status() == 1
    scene.etcd.put(f"subnets/{left}-24", own.replace(one.address, "192.168.64.55"))
    shutil.rmtree(one.folder / "run")
    shutil.rmtree(one.folder / "data")
    mac = one.link()["address"]
    new = "10.244.250"
    scene.etcd.put(f"subnets/{new}.0-24", own)
    one.start()
    one.ready()
    assert one.base == f"{new}.0"
    assert one.link()["address"] == mac
    eventually("the newer is reached", lambda: two.reaches(one.base))
    eventually(
        "the older is named", lambda: f"{left}/24 of 192.168.64.55: it publishes the" in two.log
    )


@private
def test_a_cloned_disk_is_another_node(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    one, two = scene.nodes
    one.start()
    one.ready()
    for name in ("run", "data"):
        shutil.copytree(
            one.folder / name, two.folder / name, ignore=shutil.ignore_patterns("*.sock")
        )
    last = next((two.folder / "data" / "last").iterdir())
    last.rename(last.with_name(last.name.replace("node1", "node2")))
    two.start()
    two.ready()
    assert one.base != two.base
    assert one.link()["address"] != two.link()["address"]
    eventually("they reach each other", lambda: one.reaches(two.base) and two.reaches(one.base))


@private
def test_two_nodes_with_one_public_address_are_named_on_both(tmp_path: Path) -> None:
    """The newcomer ends, and starts again as another node; the first keeps its subnet and pods."""
    scene = Scene(tmp_path, 2, "--iface", "eth0", "--public-ip", "203.0.113.7")
    one, two = scene.nodes
    one.start()
    one.ready()
    base = one.base
    two.start()
    assert two.status() == 1
    assert "another node publishes this node's address 203.0.113.7" in two.log
    eventually("the first knows", lambda: "publishes this node's address 203.0.113.7" in one.log)
    two.start()
    two.ready()
    assert one.base == base != two.base
    assert published(scene) == {f"{node.base}-24": "203.0.113.7" for node in (one, two)}
    for node, other in ((one, two), (two, one)):
        told = f"{other.base}/24 of 203.0.113.7: that is an address of this node: another node"
        eventually(f"{node.name} names it", lambda: told in node.log)  # noqa: B023
        assert told in node.flanneld("status")

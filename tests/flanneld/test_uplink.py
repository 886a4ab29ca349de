"""The way to the other nodes: what may be it, what it is left for, and what is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import GATEWAY, UNDERLAY, Scene, eventually
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flanneld.scene import Node

pytestmark = [needs_root, pytest.mark.timeout(600)]

VIA = f"via {UNDERLAY}.{GATEWAY}"


def looked(node: Node) -> None:
    """Wait until the daemon has looked at the node once more: it writes the file anew then."""
    before = node.subnet_file.stat().st_ino
    node.subnet_file.write_text("x")
    node.sh("ip link set eth0 alias looked")
    eventually("it has looked", lambda: node.subnet_file.stat().st_ino != before)


@private
@pytest.mark.parametrize("to", ["cni0", "flannel.1"])
def test_a_default_route_to_the_pods_is_not_followed(tmp_path: Path, to: str) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    one.sh("ip link add cni0 type bridge")
    one.sh(f"ip address add {one.env['FLANNEL_SUBNET']} dev cni0")
    one.sh("ip link set cni0 up")
    one.sh("sysctl -qw net.ipv4.ip_forward=1")
    before = (one.link()["ifindex"], scene.etcd.leases())
    for command in (f"add default dev {to} metric 1", f"del default {VIA}"):
        one.sh(f"ip route {command}")
        looked(one)
        assert (one.link()["ifindex"], scene.etcd.leases()) == before
        assert two.reaches(one.base)
    one.restart("--iface", "eth0")
    assert (one.link()["ifindex"], scene.etcd.leases()) == before
    one.restart()
    assert (one.link()["ifindex"], scene.etcd.leases()) == before


@private
@pytest.mark.parametrize("old", ["stays", "goes"])
def test_a_vpn_with_a_better_metric_does_not_take_over(tmp_path: Path, old: str) -> None:
    """While the others are reached as before; the daemon's restart is no occasion either."""
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    before = scene.etcd.leases()
    one.sh("ip link add vpn type veth peer name far")
    one.sh("ip address add 198.51.100.2/24 dev vpn")
    one.sh("ip link set vpn up")
    one.sh("ip link set far up")
    one.sh(f"ip route del default {VIA}")
    if old == "stays":
        one.sh(f"ip route add default {VIA} metric 100")
    one.sh("ip route add default via 198.51.100.1 dev vpn metric 1")
    looked(one)
    assert scene.etcd.leases() == before
    one.restart()
    assert scene.etcd.leases() == before
    assert two.reaches(one.base)


@private
@pytest.mark.parametrize("newcomer", ["vpn", "bridge"])
def test_routes_to_the_others_keep_the_uplink(tmp_path: Path, newcomer: str) -> None:
    """A node behind a router is reached as before, by a route that is not the default one."""
    scene = Scene(tmp_path)
    one, two = scene.nodes
    sh("ip address add 10.77.0.1/24 dev underlay; sysctl -qw net.ipv4.ip_forward=1")
    two.sh("ip address flush dev eth0 scope global")
    two.sh("ip address add 10.77.0.2/24 dev eth0")
    two.sh("ip route add default via 10.77.0.1")
    scene.start()
    before = scene.etcd.leases()
    one.sh("ip link add vpn type veth peer name far")
    one.sh("ip link set far up")
    holder = "vpn"
    if newcomer == "bridge":
        holder = "docker0"
        one.sh("ip link add docker0 type bridge")
        one.sh("ip link set docker0 up")
        one.sh("ip link set vpn master docker0")
    one.sh("ip link set vpn up")
    one.sh(f"ip address add 198.51.100.2/24 dev {holder}")
    one.sh(f"ip route add 10.77.0.0/16 {VIA}")
    one.sh(f"ip route replace default via 198.51.100.1 dev {holder}")
    looked(one)
    assert one.ip("route", "show", "default")[0]["dev"] == holder
    assert scene.etcd.leases() == before
    one.restart()
    assert scene.etcd.leases() == before
    assert two.reaches(one.base)
    # Without that route the other is reached by the newcomer alone.
    one.sh(f"ip route del 10.77.0.0/16 {VIA}")
    eventually("it is followed", lambda: "198.51.100.2" in str(scene.etcd.leases()))


@private
def test_an_uplink_that_is_gone_is_left(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    sh(f"ip link add to9 type veth peer name eth1 netns {one.name}")
    sh("ip link set to9 master underlay up")
    one.sh("ip address add 192.168.64.91/24 dev eth1")
    one.sh("ip link set eth1 up")
    one.sh("ip link del eth0")
    one.sh(f"ip route add default {VIA}")
    eventually("the other reaches it", lambda: two.reaches(one.base))
    assert '"PublicIP":"192.168.64.91"' in scene.etcd.leases()[f"{one.base}-24"]


@private
@pytest.mark.parametrize("missing", ["route", "address", "interface"])
def test_it_waits_for_a_way_to_the_others(tmp_path: Path, missing: str) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    if missing == "route":
        one.sh(f"ip route del default {VIA}")
    elif missing == "address":
        one.sh("ip link add wan type veth peer name far")
        one.sh("ip link set wan up")
    one.start(*([] if missing == "route" else ["--iface", "wan"]))
    eventually("it says why", lambda: "this node has no way to the others" in one.get("readyz"))
    lines = len(one.log.splitlines())
    sh("sleep 5")
    assert len(one.log.splitlines()) == lines
    assert one.process is not None
    assert one.process.poll() is None
    if missing == "route":
        one.sh(f"ip route add default {VIA}")
    else:
        if missing == "interface":
            one.sh("ip link add wan type veth peer name far")
        one.sh("ip address add 198.51.100.2/24 dev wan")
        one.sh("ip link set wan up")
    one.ready()


@private
def test_it_ends_while_it_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    one.start("--iface", "wan")
    eventually("it waits", lambda: "this node has no way to the others" in one.log)
    assert one.end() == 0


@private
def test_daemons_beside_one_another(tmp_path: Path) -> None:
    """Two of one network; one that is not ours; and what cleanup does beside either."""
    scene = Scene(tmp_path, 1)
    scene.start()
    (one,) = scene.nodes
    first, path = one.process, one.subnet_file
    assert first is not None
    one.subnet_file = one.folder / "other" / "subnet.env"
    one.start("--healthz-port", "0")
    assert one.status() == 1
    assert (
        f"another flanneld of the network 10.244.0.0/16 runs on this node (process {first.pid},"
        in (one.log)
    )
    part = ("--subnet-mgr", "local", "--network", "10.244.128.0/17", "--healthz-port", "0")
    one.start(*part)
    assert one.status() == 1
    assert one.log.count(f"network 10.244.0.0/16 runs on this node (process {first.pid},") == 2
    refused = one.flanneld("cleanup", "--all", status=2)
    assert (
        f"another flanneld of the network 10.244.0.0/16 runs on this node (process {first.pid},"
        in (refused)
    )
    one.process, one.subnet_file = first, path
    one.ready()
    released = tmp_path / "flanneld-amd64"
    sh(f"cp $(command -v sleep) {released}")
    go = one.beside(str(released), "1000")
    assert one.end() == 0
    one.start()
    one.ready()
    told = f"another flanneld runs on this node (process {go.pid}, {released})"
    eventually("it is named", lambda: told in one.flanneld("status"))
    assert one.end() == 0
    assert told in one.flanneld("cleanup", status=2)
    assert path.exists()
    go.kill()
    go.wait()
    assert "removed device flannel.1" in one.flanneld("cleanup")

"""The daemon as a process: two nodes on an etcd, seen from the kernel, from etcd, and over HTTP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import Scene, eventually, program
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_root, pytest.mark.timeout(600)]


@private
def test_two_nodes_reach_each_other(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    assert one.subnet_file.read_text() == (
        "FLANNEL_NETWORK=10.244.0.0/16\n"
        f"FLANNEL_SUBNET={one.base.removesuffix('.0')}.1/24\n"
        "FLANNEL_MTU=1450\n"
        "FLANNEL_IPMASQ=false\n"
    )
    assert one.reaches(two.base)
    assert two.reaches(one.base)
    published = {
        lease: json.loads(text)["BackendData"]["VtepMAC"]
        for lease, text in scene.etcd.leases().items()
    }
    assert published == {f"{node.base}-24": node.link()["address"] for node in scene.nodes}
    assert one.get("healthz") == "flanneld is running"
    assert one.metric("leases") == 2
    assert one.metric("ready") == 1
    (built,) = [line for line in one.get("metrics").splitlines() if "flannel_build_info{" in line]
    said = subprocess.run([*program(), "--version"], capture_output=True, text=True, check=True)
    words = dict(re.findall(r'(\w+)="([^"]*)"', built))
    assert said.stdout == (
        "flanneld {version}, commit {commit}, {architecture}, python {python}\n".format(**words)
    )


@private
def test_sigterm_leaves_the_data_plane_and_a_restart_finds_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    before = (one.link()["ifindex"], one.link()["address"], one.routes(), one.env)
    assert one.end() == 0
    assert (one.link()["ifindex"], one.link()["address"], one.routes(), one.env) == before
    assert two.reaches(one.base)
    one.start()
    one.ready()
    assert (one.link()["ifindex"], one.link()["address"], one.routes(), one.env) == before


@private
def test_no_packet_is_lost_when_it_is_killed_and_started(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2, "--ip-masq")
    scene.start()
    one, two = scene.nodes
    probe = (
        f"ip netns exec {two.name} ping -n -q -i 0.01 -c 300 {one.base} >{tmp_path}/ping & echo $!"
    )
    pid = sh(probe).strip()
    assert one.end(signal.SIGKILL) == -signal.SIGKILL
    one.start()
    one.ready()
    sh(f"tail --pid={pid} -f /dev/null")
    assert "300 packets transmitted, 300 received" in (tmp_path / "ping").read_text()


@private
def test_a_revoked_lease_ends_it_with_1(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    scene.etcd.delete(f"subnets/{one.base}-24")
    assert one.status() == 1
    assert "lease lost" in one.log
    eventually("the other forgets it", lambda: f"{one.base}/24" not in two.routes())
    # The same subnet is free again for whoever had it.
    base = one.base
    one.start()
    one.ready()
    assert one.base == base


@private
def test_a_store_that_lost_its_data_does_not_take_the_paths_away(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    before = one.routes()
    assert before
    scene.etcd.ctl("del", "--prefix", "/coreos.com/network/subnets/")
    assert (one.status(), two.status()) == (1, 1)
    assert one.routes() == before
    assert one.reaches(two.base)
    bases = (one.base, two.base)
    for node in scene.nodes:
        node.start()
    for node in scene.nodes:
        node.ready()
    assert (one.base, two.base) == bases
    eventually("they know each other again", lambda: one.routes() == before)


@private
def test_an_outage_of_etcd_touches_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    before = one.routes()
    assert before
    scene.etcd.stop()
    eventually("one notices", lambda: one.metric("store_errors_total") >= 3)
    assert one.routes() == before
    assert one.reaches(two.base)
    status, *causes = one.get("readyz").splitlines()
    assert status == "flanneld is ready"
    assert any("what other nodes change is not seen at present: etcd" in line for line in causes)
    scene.etcd.start()
    scene.etcd.put(
        "subnets/10.244.200.0-24",
        '{"PublicIP":"192.168.64.9","BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}',
    )
    eventually("one sees what came after", lambda: "10.244.200.0/24" in one.routes())
    assert one.routes().items() >= before.items()


@private
@pytest.mark.parametrize(
    "damage",
    [
        "ip route flush dev flannel.1",
        "ip neigh flush dev flannel.1 nud permanent",
        "bridge fdb del {mac} dev flannel.1 dst {address} self",
        "ip link set flannel.1 down",
        "ip link del flannel.1",
        "ip address flush dev flannel.1",
        "ip link set flannel.1 mtu 1400",
        "ip link set flannel.1 address 02:00:00:00:00:01",
    ],
)
def test_what_is_damaged_by_hand_is_repaired(tmp_path: Path, damage: str) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    mac = one.link()["address"]
    one.sh(damage.format(mac=two.link()["address"], address=two.address))
    eventually("drift is counted", lambda: one.metric("drift_repaired_total") >= 1)
    eventually("it works again", lambda: one.reaches(two.base))
    eventually("the MTU is right", lambda: one.link()["mtu"] == 1450)
    eventually("so is the MAC", lambda: one.link()["address"] == mac)
    one.ready()


@private
def test_it_is_not_ready_while_another_device_is_in_the_way(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    one.end()
    one.sh("ip link del flannel.1")
    one.sh("ip link add thief type vxlan id 1 dstport 8472 dev eth0 local 192.168.64.1 nolearning")
    one.start()
    eventually("the thief is named", lambda: "thief" in one.log)
    status, *causes = one.get("readyz").splitlines()
    assert status == "flanneld is not ready yet"
    assert any("thief" in line for line in causes)
    one.sh("ip link del thief")
    one.ready()
    assert one.reaches(two.base)


@private
def test_it_is_not_ready_any_more_when_the_uplink_is_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    one.sh("ip link del eth0")
    eventually("not ready", lambda: one.get("readyz").startswith("flanneld is not ready yet"))
    one.connect()
    one.ready()
    eventually("it works again", lambda: one.reaches(two.base))

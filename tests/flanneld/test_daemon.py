"""The daemon as a process: two nodes on an etcd, seen from the kernel, from etcd, and over HTTP."""

from __future__ import annotations

import json
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import PATIENCE_S, Scene, eventually
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [needs_root, pytest.mark.timeout(300)]


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
    assert one.get("readyz") == "flanneld is ready"
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
    assert one.link()["address"] == mac
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
    assert one.get("readyz") == "flanneld is not ready yet"
    one.sh("ip link del thief")
    one.ready()
    assert one.reaches(two.base)


@private
def test_it_is_not_ready_any_more_when_the_uplink_is_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    one.sh("ip link del eth0")
    eventually("not ready", lambda: one.get("readyz") == "flanneld is not ready yet")
    one.connect()
    one.ready()
    eventually("it works again", lambda: one.reaches(two.base))


@private
def test_a_new_address_of_the_node_is_published(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    one.sh("ip address add 192.168.64.77/24 dev eth0")
    one.sh("ip address del 192.168.64.1/24 dev eth0")
    one.sh("ip address add 192.168.64.77/24 dev eth0 || true")
    one.sh("ip route replace default via 192.168.64.254")
    eventually(
        "etcd has it",
        lambda: '"PublicIP":"192.168.64.77"' in scene.etcd.leases()[f"{one.base}-24"],
    )
    eventually("the other uses it", lambda: two.reaches(one.base))
    assert one.link()["linkinfo"]["info_data"]["local"] == "192.168.64.77"


@private
@pytest.mark.parametrize("lost", ["device", "device and file"])
def test_the_mac_outlives_its_device(tmp_path: Path, lost: str) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, _ = scene.nodes
    mac = one.link()["address"]
    one.end()
    one.sh("ip link del flannel.1")
    if lost == "device and file":
        sh(f"rm -r {one.folder}/data")
    one.start()
    one.ready()
    assert one.link()["address"] == mac


@private
def test_behind_nat_the_tunnel_s_source_is_the_interface_s_address(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    one.start("--iface", "eth0", "--public-ip", "203.0.113.7")
    one.ready()
    assert one.link()["linkinfo"]["info_data"]["local"] == one.address
    assert '"PublicIP":"203.0.113.7"' in scene.etcd.leases()[f"{one.base}-24"]


@private
def test_the_mtu_of_the_uplink_is_followed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    scene.start()
    (one,) = scene.nodes
    one.sh("ip link set eth0 mtu 1400")
    eventually("subnet.env says so", lambda: one.env["FLANNEL_MTU"] == "1350")
    eventually("the device too", lambda: one.link()["mtu"] == 1350)


@private
def test_it_waits_for_a_configuration_and_ends_while_it_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    scene.etcd.delete("config")
    one.start()
    eventually("it waits", lambda: "no key /coreos.com/network/config" in one.log)
    assert one.get("readyz") == "flanneld is not ready yet"
    assert one.end() == 0
    one.start()
    eventually("it waits again", lambda: one.get("healthz"))
    scene.etcd.configure(Backend={"Type": "host-gw"})
    one.ready()
    assert one.env["FLANNEL_MTU"] == "1500"


@private
def test_a_second_daemon_with_the_same_file_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    scene.start()
    (one,) = scene.nodes
    first = one.process
    one.start("--healthz-port", "0")
    assert one.status() == 1
    assert f"another flanneld writes {one.subnet_file}" in one.log
    one.process = first
    one.ready()


@private
def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    scene.start()
    (one,) = scene.nodes
    first = one.process
    one.subnet_file = one.folder / "other" / "subnet.env"
    one.start()
    assert one.status() == 1
    assert "8081" in one.log.splitlines()[-1]
    assert first is not None
    assert first.poll() is None


@private
def test_the_service_manager_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("/run/notify")
        manager.settimeout(PATIENCE_S)
        one.start(NOTIFY_SOCKET="/run/notify")
        while (said := manager.recv(4096).decode()) != "READY=1":
            assert said.startswith("STATUS=")
        assert "0 peers, ready" in manager.recv(4096).decode()
        assert one.end() == 0
        while manager.recv(4096) != b"STOPPING=1":
            pass


@private
def test_the_local_store_with_a_file_of_peers(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    peers = tmp_path / "peers.json"
    peers.write_text('{"10.9.7.0-24": {"PublicIP": "192.168.64.7", "BackendType": "host-gw"}}')
    one.start(
        *("--subnet-mgr", "local", "--network", "10.9.0.0/16", "--backend", "host-gw"),
        *("--peers", str(peers)),
    )
    one.ready()
    assert one.env["FLANNEL_SUBNET"] == "10.9.1.1/24"
    eventually("the peer's route", lambda: one.routes("eth0")["10.9.7.0/24"] == "192.168.64.7")
    peers.write_text('{"10.9.8.0-24": {"PublicIP": "192.168.64.8", "BackendType": "host-gw"}}')
    eventually("the new peer's", lambda: one.routes("eth0")["10.9.8.0/24"] == "192.168.64.8")
    eventually("the old one's is gone", lambda: "10.9.7.0/24" not in one.routes("eth0"))


@private
def test_udp(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Backend={"Type": "udp"})
    scene.start()
    one, two = scene.nodes
    assert one.env["FLANNEL_MTU"] == "1472"
    assert scene.etcd.leases()[f"{one.base}-24"] == (
        f'{{"PublicIP":"{one.address}","PublicIPv6":null}}'
    )
    eventually("packets pass", lambda: two.reaches(one.base))
    assert one.end() == 0
    eventually("the device is gone", lambda: not one.routes("flannel0"))
    one.start()
    one.ready()
    eventually("packets pass again", lambda: two.reaches(one.base))


@private
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_dual_stack(tmp_path: Path, backend: str) -> None:
    scene = Scene(
        tmp_path,
        EnableIPv6=True,
        IPv6Network="fd44::/48",
        Backend={"Type": backend},
    )
    scene.start()
    one, two = scene.nodes
    assert one.env["FLANNEL_MTU"] == ("1430" if backend == "vxlan" else "1500")
    for node, other in ((one, two), (two, one)):
        prefix = other.env["FLANNEL_IPV6_SUBNET"]
        sh(f"ip -n {other.name} address add {prefix} dev lo; true")
        sh(f"ip -n {other.name} address add {other.env['FLANNEL_SUBNET']} dev lo; true")
        sh(f"ip netns exec {other.name} sysctl -qw net.ipv6.conf.all.forwarding=1")
        address = prefix.partition("/")[0]
        eventually(f"{node.name} reaches {address}", partial(node.reaches, address))
        assert node.reaches(other.env["FLANNEL_SUBNET"].partition("/")[0])

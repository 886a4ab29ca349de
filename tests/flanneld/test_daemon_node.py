"""The daemon and its node: addresses, MACs, MTU, its store, its files, its backends."""

from __future__ import annotations

import os
import socket
import stat
from functools import partial
from pathlib import Path

import pytest

from tests.flanneld.scene import PATIENCE_S, Scene, eventually
from tests.kernel.privatens import needs_root, private, sh

pytestmark = [needs_root, pytest.mark.timeout(600)]


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
    assert one.get("readyz").startswith("flanneld is not ready yet\nproblem: ")
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
def test_a_node_that_does_not_forward_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    one.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=0")
    scene.start()
    assert "forwards no packet" not in one.log
    one.sh("sysctl -qw net.ipv4.ip_forward=0")
    eventually("it is told", lambda: "net.ipv4.ip_forward is 0: what pods send" in one.log)
    assert "net.ipv6" not in one.log
    assert one.metric("ready") == 0
    one.end()
    one.start()
    one.ready()  # there was no pod yet, and the plugins turn the switch for the first one
    assert "warning: net.ipv4.ip_forward is 0: this node forwards no packet" in one.get("readyz")


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
def test_no_child_has_the_store_s_password_and_no_file_is_everybody_s(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    before = os.umask(0)
    one.start(
        *("--subnet-mgr", "local", "--network", "10.9.0.0/16", "--backend", "udp"),
        FLANNELD_ETCD_USERNAME="flannel",
        FLANNELD_ETCD_PASSWORD="hunter2",  # noqa: S106 - what is not to be seen
    )
    os.umask(before)
    one.ready()
    assert one.process is not None
    children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
    assert children
    for child in children:
        environ = Path(f"/proc/{child}/environ").read_bytes()
        assert b"hunter2" not in environ
        assert b"PATH=" in environ
    made = [path for name in ("run", "data") for path in (one.folder / name).rglob("*")]
    assert {"subnet.lock", "subnet.env", "lock"} <= {path.name for path in made}
    for path in (one.folder / "run", one.folder / "data", *made):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022 or path.is_socket(), path


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

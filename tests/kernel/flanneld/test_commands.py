"""status, diff, explain and cleanup, as a person calls them: what they print, and their status."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING

import pytest

from flanneld import files, liveness, state
from flanneld.readiness import Cause
from tests.kernel.flanneld import packet_filter
from tests.kernel.flanneld.scene import apply, link, plan, routes, settle, up
from tests.kernel.privatens import private, sh
from tests.unit.flanneld.cluster import conf, external, identity, lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.lease import Lease

ROOT = Path(__file__).resolve().parents[3]
SUBNET_FILE = "/run/flannel/subnet.env"
GONE = 2**22 + 1  # larger than any process id
BRIDGE = (
    "ip link add cni0 type bridge; ip address add 10.244.1.1/24 dev cni0; ip link set cni0 up;"
    "sysctl -qw net.ipv4.ip_forward=1"
)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program, in this namespace."""
    return subprocess.run(
        [sys.executable, "-m", "flanneld", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def set_up(*peers: Lease, kind: str = "vxlan", families: str = "4") -> None:
    """Make this node 1 among these peers, as a daemon leaves it."""
    up()
    sh(BRIDGE)
    apply(plan(*peers, kind=kind, families=families))
    outer = external(families=families, index=socket.if_nametoindex("eth0"))
    files.write(SUBNET_FILE, b"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n")
    state.save(
        state.State(
            pid=GONE,
            version="0",
            written=0.0,
            conf=conf(kind, families=families),
            settings=state.Settings(
                ip_masq=False,
                fully_random=True,
                forward_rules=False,
                blackhole_route=False,
                subnet_file=SUBNET_FILE,
            ),
            external=outer,
            identity=identity(1),
            lease=lease(1, kind, families=families),
            peers=peers,
            ready=True,
            causes=(),
        )
    )


@contextmanager
def running(*causes: Cause) -> Iterator[None]:
    """Be the daemon, as far as its lock and its socket say."""
    loop = asyncio.new_event_loop()
    document = {"causes": [asdict(cause) for cause in causes]}
    with files.lock(state.lock_path(SUBNET_FILE)):
        server = loop.run_until_complete(
            liveness.serve(liveness.path(SUBNET_FILE), lambda: document)
        )
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


# ------------------------------------------------------------------------------------------- diff


@private
def test_diff() -> None:
    set_up(lease(2))
    same = call("diff")
    assert (same.returncode, same.stdout) == (0, "")
    sh("ip link set flannel.1 mtu 1300; ip route del 10.244.2.0/24;")
    sh("ip route add 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink proto 244")
    other = call("diff")
    assert other.returncode == 1
    device, stale, missing = other.stdout.splitlines()
    assert device.startswith("~ device flannel.1 ")
    assert device.endswith("(mtu 1300 -> 1450)")
    assert stale == "- route 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink"
    assert missing == "+ route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"
    assert json.loads(call("diff", "--json").stdout) == other.stdout.splitlines()


@pytest.mark.parametrize("command", [["status"], ["diff"], ["explain", "10.0.0.1", "10.0.0.2"]])
@private
def test_where_no_daemon_ever_ran(command: list[str]) -> None:
    done = call(*command)
    assert done.returncode == 2
    assert "/run/flannel/subnet.state.json does not exist" in done.stderr
    assert done.stdout == ""


# ----------------------------------------------------------------------------------------- status


@private
def test_status() -> None:
    set_up(lease(2), lease(3, "host-gw"), lease(4, ""))
    sh("ip neighbour del 10.244.2.0 dev flannel.1")
    with running():
        done = call("status")
        told = json.loads(call("status", "--json").stdout)
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "network 10.244.0.0/16, backend vxlan" in lines
    assert "interface eth0 192.168.9.1, MTU 1500" in lines
    assert "device flannel.1 02:00:00:04:00:01, MTU 1450: ok" in lines
    assert "10.244.2.0/24 192.168.9.2 vxlan flannel.1 1450 ok missing ok ok" in lines
    assert "10.244.3.0/24 192.168.9.3 host-gw eth0 1500 - - - ok" in lines
    assert "10.244.4.0/24 192.168.9.4 - - - - - - -" in lines
    assert told["running"] is True
    assert told["lease"]["subnet"] == "10.244.1.0/24"
    assert [peer["neighbour"] for peer in told["peers"]] == ["missing", "-", "-"]
    assert told["peers"][2]["problem"].startswith("10.244.4.0/24 of 192.168.9.4: it publishes no")
    assert told["differences"] == ["+ neighbour 10.244.2.0 lladdr 02:00:00:04:00:02 dev flannel.1"]


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        ("ip link add flannel.1 type bridge", "wrong missing missing missing"),
        ("ip link del eth0", "missing missing missing missing"),
    ],
)
@private
def test_status_without_a_device(damage: str, row: str) -> None:
    set_up(lease(2))
    sh(f"ip link del flannel.1; {damage}")
    done = call("status")
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("10.244.2.0/24"))
    assert " ".join(line.split()).endswith(row)


@private
def test_status_of_a_healthy_node_and_of_one_without_its_daemon() -> None:
    set_up(lease(2))
    with running():
        assert call("status").returncode == 0
    done = call("status")
    assert done.returncode == 1
    assert f"not running (pid {GONE} is gone)" in done.stdout


@private
def test_status_of_a_daemon_that_does_not_answer_and_of_one_that_knows_of_trouble() -> None:
    set_up(lease(2))
    with files.lock(state.lock_path(SUBNET_FILE)):
        silent = call("status")
        assert silent.returncode == 1
        assert "runs but does not answer" in silent.stdout
        why = call("explain", "10.244.1.5", "10.244.2.7")
        assert "runs but does not answer" in why.stdout
    with running(Cause("store", "etcd is away\x1b[2J", 7.0, blocks=False)):
        told = call("status")
    assert told.returncode == 1
    with running(Cause("rules", "a switch is off, perhaps on purpose", 7.0, blocks=False)):
        warned = call("status")
    assert warned.returncode == 0
    assert "a switch is off, perhaps on purpose (since" in warned.stdout
    assert "etcd is away\\x1b[2J (since 1970-01-01" in told.stdout
    assert "\x1b" not in told.stdout


# ---------------------------------------------------------------------------------------- explain


def explain(source: str, target: str) -> tuple[int, str, str]:
    """Status, the last step's name, and its words."""
    with running():
        done = call("explain", source, target, "--json")
    assert done.stderr == ""
    last = [step for step in json.loads(done.stdout) if step["name"] != "unknown"][-1]
    assert last["is_ok"] == (done.returncode == 0)
    return done.returncode, last["name"], f"{last['found']} {last['remedy']}"


BROKEN = [
    ("ip link del cni0", "pod's link", "no route to 10.244.1.5"),
    (
        "ip link del cni0; ip route add default dev far",
        "pod's link",
        "10.244.1.5 is on no link of pods: 0.0.0.0/0 dev far",
    ),
    ("ip link set cni0 down", "pod's link", "cni0 is down"),
    ("sysctl -qw net.ipv4.ip_forward=0", "forwarding", "net.ipv4.ip_forward is off"),
    ("ip link del flannel.1", "device", "flannel.1 does not exist"),
    ("ip link set flannel.1 down", "device", "(down -> up)"),
    (
        "ip link del flannel.1; ip link add flannel.1 type bridge; ip link set flannel.1 up",
        "device",
        "flannel.1 exists and is bridge, not a VXLAN device: delete or rename it",
    ),
    (
        "ip route del 10.244.2.0/24; ip route add blackhole 10.244.2.0/24",
        "route",
        "the route to 10.244.2.0/24 is missing",
    ),
    ("ip link set flannel.1 mtu 1300", "device", "mtu 1300 -> 1450"),
    ("ip route del 10.244.2.0/24", "route", "the route to 10.244.2.0/24 is missing"),
    ("ip route add 10.244.2.7 via 192.168.9.254", "route", "10.244.2.7/32 via 192.168.9.254"),
    (
        "ip rule add to 10.244.2.0/24 table 100; ip route add default dev far table 100",
        "route",
        "the kernel takes another route: 0.0.0.0/0 dev far",
    ),
    (
        "ip neighbour del 10.244.2.0 dev flannel.1",
        "neighbour",
        "10.244.2.0 on flannel.1 is missing",
    ),
    ("bridge fdb del 02:00:00:04:00:02 dev flannel.1", "fdb", "to 192.168.9.2 on flannel.1"),
    ("ip route add unreachable 192.168.9.2", "underlay", "no route to 192.168.9.2"),
    ("ip rule add to 192.168.9.2 prohibit", "underlay", "no route to 192.168.9.2"),
    ("ip link set eth0 mtu 1400", "mtu", "packets of 1450 bytes become 1500, the underlay carries"),
    ("ip neighbour add 192.168.9.2 dev eth0 nud failed", "next hop", "does not answer"),
]


@pytest.mark.parametrize(("damage", "step", "words"), BROKEN)
@private
def test_the_first_broken_step_is_named(damage: str, step: str, words: str) -> None:
    set_up(lease(2))
    assert explain("10.244.1.5", "10.244.2.7")[:2] == (0, "readiness")
    sh(damage)
    status, name, found = explain("10.244.1.5", "10.244.2.7")
    assert (status, name) == (1, step)
    assert words in found


@pytest.mark.parametrize(
    ("source", "target", "step", "words"),
    [
        ("10.244.1.5", "10.244.77.1", "lease", "no node has leased a subnet with 10.244.77.1"),
        ("10.244.1.5", "192.0.2.1", "route", "the kernel has no route for 10.244.1.5 -> 192.0.2.1"),
        (
            "10.244.2.7",
            "192.0.2.1",
            "ends",
            "10.244.2.7 is of the node 192.168.9.2, 192.0.2.1 is no",
        ),
        ("192.168.9.2", "192.168.9.3", "ends", "192.168.9.2 is the node of 10.244.2.0-24 itself"),
        ("10.244.1.5", "10.244.3.7", "plan", "it publishes no backend type"),
    ],
)
@private
def test_addresses_that_lead_nowhere(source: str, target: str, step: str, words: str) -> None:
    set_up(lease(2), lease(3, ""))
    status, name, found = explain(source, target)
    assert (status, name) == (1, step)
    assert words in found


@private
def test_what_a_vxlan_device_sends_is_bound_to_its_interface() -> None:
    set_up(lease(2))
    sh("ip route add 192.168.9.2 dev flannel.1")
    assert explain("10.244.1.5", "10.244.2.7")[0] == 0


@private
def test_two_pods_of_this_node() -> None:
    set_up(lease(2))
    assert explain("10.244.1.5", "10.244.1.6")[0] == 0
    sh("ip address add 10.244.1.9/32 dev far")
    assert explain("10.244.1.5", "10.244.1.9")[0] == 0


@private
def test_by_host_gw() -> None:
    set_up(lease(2, "host-gw"), kind="host-gw")
    assert explain("10.244.1.5", "10.244.2.7")[:2] == (0, "readiness")
    sh("ip route flush proto 244")
    assert explain("10.244.1.5", "10.244.2.7")[:2] == (1, "route")


@pytest.mark.parametrize(
    ("damage", "step"),
    [
        ("true", "readiness"),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding"),
        ("ip link set flannel-v6.1 mtu 1300", "device"),
        ("ip -6 route del fd44:0:0:2::/64", "route"),
        ("ip neighbour del fd44:0:0:2:: dev flannel-v6.1", "neighbour"),
        ("bridge fdb del 02:00:00:06:00:02 dev flannel-v6.1", "fdb"),
        ("ip -6 rule add to fd09::2 unreachable", "underlay"),
        ("ip link set eth0 mtu 1499", "mtu"),
    ],
)
@private
def test_ipv6(damage: str, step: str) -> None:
    set_up(lease(2, families="6"), families="6")
    sh(
        "sysctl -qw net.ipv6.conf.all.forwarding=1;"
        "ip address add fd44:0:0:1::1/64 dev cni0 nodad; ip link set far master cni0"
    )
    sh(damage)
    status, name, found = explain("fd44:0:0:1::5", "fd44:0:0:2::7")
    assert (status, name) == (int(step != "readiness"), step), found


@private
def test_explained_to_a_person() -> None:
    set_up(lease(2))
    done = call("explain", "10.244.1.5", "10.244.2.7")
    assert done.returncode == 1
    *_, daemon, remedy = done.stdout.splitlines()
    assert daemon.split(maxsplit=2)[:2] == ["FAIL", "daemon"]
    assert remedy.strip() == "start it, and read the end of its log"
    assert call("explain", "10.244.1.5", "fd44::1").returncode == 2
    assert call("explain", "10.244.1.5", "pod").returncode == 2


# ---------------------------------------------------------------------------------------- cleanup


def traces() -> Iterator[str]:
    if link("flannel.1") is not None:
        yield "device"
    yield from (net for net, one in routes().items() if one.get("protocol") == "244")
    yield from (name for name in os.listdir("/run/flannel") if name != "subnet.lock")


@pytest.mark.parametrize("words", [["cleanup"], ["--cleanup"]])
@private
def test_cleanup(words: list[str]) -> None:
    set_up(lease(2), lease(3, "host-gw"))
    files.write("/run/data/mac/flannel.1@192.168.9.1", b"02:00:00:04:00:01\n")
    for killed in (SUBNET_FILE, state.path(SUBNET_FILE), "/run/data/mac/flannel.1@192.168.9.1"):
        mkstemp(prefix=f".{Path(killed).name}.", dir=Path(killed).parent)
    sh("ip route add 10.244.9.0/24 via 192.168.9.254 proto static")
    with running():
        refused = call("cleanup")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "flanneld runs: stop it first" in refused.stderr
    done = call(*words, "--data-dir", "/run/data")
    assert done.returncode == 0, done.stderr
    assert not list(traces())
    assert not os.listdir("/run/data/mac")
    assert set(routes()) == {"10.244.1.0/24", "10.244.9.0/24", "192.168.9.0/24"}
    assert link("cni0") is not None
    again = call("cleanup")
    assert again.returncode == 2
    assert "--all removes what any flannel left" in again.stderr


@private
def test_cleanup_of_all_that_any_flannel_left() -> None:
    up()
    settle(plan(lease(2), lease(3, "host-gw")))
    sh(
        "ip link add flannel.9 type vxlan id 9 dev eth0 local 192.168.9.1 dstport 8472;"
        "ip address add 10.99.1.0/32 dev flannel.9;"
        "ip link add vxlan7 type vxlan id 7 dev eth0 local 192.168.9.1 dstport 8472"
    )
    assert call("cleanup", "--all").returncode == 0
    assert set(routes()) == {"192.168.9.0/24"}
    assert link("flannel.1") is None
    assert link("flannel.9") is None
    assert link("vxlan7") is not None


# ------------------------------------------------------------------- addresses that are not pods'


def steps(source: str, target: str) -> tuple[int, dict[str, str]]:
    """Status, and what each step found; of several of a name the last."""
    with running():
        done = call("explain", source, target, "--json")
    return done.returncode, {
        step["name"]: step["found"] for step in json.loads(done.stdout) if step["name"] != "unknown"
    }


SERVICE = """
    iptables-legacy -t nat -N KUBE-SERVICES; iptables-legacy -t nat -N KUBE-SVC-1
    iptables-legacy -t nat -N KUBE-SEP-1; iptables-legacy -t nat -A PREROUTING -j KUBE-SERVICES
    iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-1
    iptables-legacy -t nat -A KUBE-SVC-1 -j KUBE-SEP-1
    iptables-legacy -t nat -A KUBE-SEP-1 -p udp -j DNAT --to-destination 10.244.2.7:53
"""


@private
def test_a_service_is_followed_to_its_endpoints() -> None:
    set_up(lease(2))
    sh(SERVICE)
    status, found = steps("10.244.1.5", "10.96.0.10")
    assert status == 0
    assert found["service"] == "10.96.0.10 is translated to 10.244.2.7:53"
    assert found["lease"].startswith("10.244.2.0-24 is leased to 192.168.9.2")
    sh("iptables-nft -I FORWARD -p udp -d 10.244.2.7 -m conntrack --ctstate NEW -j DROP")
    assert steps("10.244.1.5", "10.96.0.10")[0] == 0  # of some ports, so not for certain
    sh("iptables-nft -R FORWARD 1 -d 10.244.2.7 -m conntrack --ctstate NEW -j DROP")
    status, found = steps("10.244.1.5", "10.96.0.10")
    assert status == 1
    assert "iptables (nf_tables), table filter, chain FORWARD" in found["firewall"]


@private
def test_a_host_outside() -> None:
    set_up(lease(2))
    sh("ip route add default via 192.168.9.254")
    status, found = steps("10.244.1.5", "192.0.2.9")
    assert status == 0
    assert "192.0.2.9 is no pod's and no node's of this network" in found["ends"]
    assert found["route"] == "10.244.1.0/24 dev cni0 proto kernel"  # of the answer
    with running():
        said = call("explain", "10.244.1.5", "192.0.2.9").stdout
    assert "whether anybody has it, and answers, is not known from here" in said
    sh("sysctl -qw net.ipv4.conf.eth0.forwarding=0")
    status, found = steps("10.244.1.5", "192.0.2.9")
    assert status == 1
    assert "net.ipv4.conf.eth0.forwarding is 0" in found["forwarding"]


@private
def test_this_node_and_its_pods() -> None:
    set_up(lease(2))
    assert steps("10.244.1.5", "192.168.9.1")[0] == 0
    assert steps("192.168.9.1", "10.244.1.5")[0] == 0
    assert steps("192.168.9.1", "10.244.2.7")[0] == 0
    sh("iptables-nft -A INPUT -i cni0 -j DROP")
    status, found = steps("10.244.1.5", "192.168.9.1")
    assert status == 1
    assert "chain INPUT: -A INPUT -i cni0 -j DROP" in found["firewall"]
    status, found = steps("192.168.9.1", "10.244.1.5")  # the answer
    assert status == 1


@private
def test_what_a_peer_s_pod_sends_here() -> None:
    set_up(lease(2))
    assert steps("10.244.2.7", "10.244.1.5")[0] == 0
    sh("nft add table ip t; nft add chain ip t c '{ type filter hook input priority 0; }'")
    sh("nft add rule ip t c ip saddr 192.168.9.2 drop")
    status, found = steps("10.244.2.7", "10.244.1.5")
    assert status == 1
    assert "nft, table ip t, chain c: ip saddr 192.168.9.2 drop" in found["firewall"]
    assert steps("10.244.1.5", "10.244.2.7")[0] == 1


@private
def test_two_pods_of_this_node_and_the_bridge_s_filters() -> None:
    set_up(lease(2))
    sh("iptables-nft -A FORWARD -i cni0 -o cni0 -j DROP")
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():
        switch.write_text("1")
        assert steps("10.244.1.5", "10.244.1.6")[0] == 1
        switch.write_text("0")
    assert steps("10.244.1.5", "10.244.1.6")[0] == 0


@private
def test_a_peer_of_udp_has_its_type() -> None:
    set_up(lease(2, ""), kind="udp")
    with running():
        told = json.loads(call("status", "--json").stdout)
    assert [peer["type"] for peer in told["peers"]] == ["udp"]


@pytest.mark.parametrize("kind", ["iptables-legacy", "iptables-nft", "nftables"])
@private
def test_cleanup_of_all_removes_the_rules_of_every_kind(kind: str, tmp_path: Path) -> None:
    set_up(lease(2))
    packets = packet_filter.Filter(kind, tmp_path)
    packet_filter.ensure(packets.rules())
    net = "10.42.0.0/16"
    for program in ("iptables-legacy", "iptables-nft"):
        sh(f"{program} -t nat -A POSTROUTING -s {net} ! -d 224.0.0.0/4 -j MASQUERADE")
        sh(f"{program} -t nat -A POSTROUTING ! -s {net} -d {net} -j MASQUERADE --random-fully")
        sh(f"{program} -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
    done = call("cleanup", "--all", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("removed iptables") >= 4
    for program in ("iptables-legacy", "iptables-nft"):
        left = sh(f"{program}-save -t nat").splitlines()
        assert [line for line in left if line.startswith("-A")] == [
            "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
        ]
    assert packet_filter.flannel_tables() == []

"""Ways to break a node, and whether `status`, /readyz and `explain` name each of them.

Two nodes with a pod each, a real etcd, and the program as it is shipped, or one that looks more
often.  Whether pods are cut off is the kernel's word: a ping from pod to pod.  Each breakage is
mended in the end, and all say so.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.flanneld.scene import Scene, eventually
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flanneld.scene import Node

pytestmark = [needs_root, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Breakage:
    """Commands for node 1 that break it and mend it, and words that each of the three says.

    ``cuts``: no packet passes from pod to pod.  ``ready``: /readyz stays 200, and warns.
    ``{pod}`` and the like are `names()`.
    """

    id: str
    damage: str
    mending: str
    words: str
    cuts: bool = True
    ready: bool = False
    conf: tuple[tuple[str, Any], ...] = ()
    flags: tuple[str, ...] = ()


def nft(rule: str, hook: str) -> str:
    return (
        "nft add table inet admin; nft add chain inet admin c"
        f" '{{ type filter hook {hook} priority 10; }}'; nft add rule inet admin c {rule}"
    )


NO_TABLE = "nft delete table inet admin"
HOST_GW = (("Backend", {"Type": "host-gw"}),)
UDP = (("Backend", {"Type": "udp"}),)
BREAKAGES = [
    Breakage(
        "ip_forward off",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.ip_forward=1",
        "net.ipv4.ip_forward is",
    ),
    Breakage(
        "forwarding off on the bridge",
        "sysctl -qw net.ipv4.conf.cni0.forwarding=0",
        "sysctl -qw net.ipv4.conf.cni0.forwarding=1",
        "net.ipv4.conf.cni0.forwarding is 0",
    ),
    Breakage(
        "forwarding off on the tunnel",
        "sysctl -qw net.ipv4.conf.flannel/1.forwarding=0",
        "sysctl -qw net.ipv4.conf.flannel/1.forwarding=1",
        "net.ipv4.conf.flannel.1.forwarding is 0",
    ),
    Breakage(
        "forwarding off on the uplink of host-gw",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
        "net.ipv4.conf.eth0.forwarding is 0",
        conf=HOST_GW,
    ),
    Breakage(
        "a DROP before ours, legacy",
        "iptables-legacy -I FORWARD 1 -j DROP",
        "iptables-legacy -D FORWARD 1",
        "iptables (legacy), table filter, chain FORWARD: -A FORWARD -j DROP",
    ),
    Breakage(
        "a DROP before ours, nf_tables",
        "iptables-nft -I FORWARD 1 -j DROP",
        "iptables-nft -D FORWARD 1",
        "iptables (nf_tables), table filter, chain FORWARD: -A FORWARD -j DROP",
    ),
    Breakage(
        "a drop of pods' packets in a table of nft",
        nft("ip saddr 10.244.0.0/16 oifname flannel.1 drop", "forward"),
        NO_TABLE,
        "nft, table inet admin, chain c: ip saddr 10.244.0.0/16",
    ),
    Breakage(
        "what a peer's pods send is dropped",
        nft("iifname flannel.1 ct state new,established drop", "prerouting"),
        NO_TABLE,
        "nft, table inet admin, chain c: iifname flannel.1",
    ),
    Breakage(
        "a policy of DROP without our rules",
        "iptables-nft -P FORWARD DROP",
        "iptables-nft -P FORWARD ACCEPT",
        "its policy is DROP",
        flags=("--iptables-forward-rules=false",),
    ),
    Breakage(
        "a reject in table mangle's chain of another",
        "iptables-nft -t mangle -N them; iptables-nft -t mangle -A POSTROUTING -j them;"
        " iptables-nft -t mangle -A them -d 10.244.0.0/16 -j DROP",
        "iptables-nft -t mangle -F; iptables-nft -t mangle -X them",
        "table mangle, chain them",
    ),
    Breakage(
        "the tunnel's port, legacy",
        "iptables-legacy -A INPUT -p udp --dport 8472 -j DROP",
        "iptables-legacy -D INPUT 1",
        "chain INPUT: -A INPUT -p udp -m udp --dport 8472 -j DROP",
    ),
    Breakage(
        "the tunnel's port, a firewall that lets ssh in",
        "iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT;"
        " iptables-nft -A INPUT -i lo -j ACCEPT; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT;"
        " iptables-nft -A INPUT -j REJECT",
        "iptables-nft -F INPUT",
        "chain INPUT: -A INPUT -j REJECT",
    ),
    Breakage(
        "the tunnel's port, nft, in raw's place",
        nft("udp dport 8472 drop", "prerouting"),
        NO_TABLE,
        "udp dport 8472 drop",
    ),
    Breakage(
        "the tunnel's own packets are not let out",
        nft("udp dport 8472 reject", "output"),
        NO_TABLE,
        "udp dport 8472 reject",
    ),
    Breakage(
        "the port of the udp backend",
        nft("udp dport 8285 drop", "input"),
        NO_TABLE,
        "udp dport 8285 drop",
        conf=UDP,
    ),
    Breakage(
        "the bridge without address",
        "ip address flush dev cni0",
        "ip address add {gateway}/24 dev cni0",
        "cni0 has not the gateway's address",
    ),
    Breakage(
        "the bridge is down",
        "ip link set cni0 down",
        "ip link set cni0 up",
        "cni0 is down",
    ),
    Breakage(
        "the bridge is gone",
        "ip link del cni0",
        "ip link add cni0 type bridge; ip address add {gateway}/24 dev cni0; ip link set cni0 up;"
        " ip link set veth0 master cni0",
        "the bridge of this node's pods, does not exist: veth0",
    ),
    Breakage(
        "the uplink's address is gone",
        "ip address del {address}/24 dev eth0",
        "ip address add {address}/24 dev eth0; ip route replace default via 192.168.64.254",
        "eth0",
    ),
    Breakage(
        "the uplink is down",
        "ip link set eth0 down",
        "ip link set eth0 up; ip route replace default via 192.168.64.254",
        "eth0 is down",
    ),
    Breakage(
        "a rule that sends pods' packets elsewhere",
        "ip rule add from 10.244.0.0/16 priority 50 table 7; ip route add default via"
        " 192.168.64.254 table 7",
        "ip rule del priority 50; ip route flush table 7",
        "ip rule 50: from 10.244.0.0/16 lookup 7",
    ),
    Breakage(
        "a rule for the bridge that leads nowhere",
        "ip rule add iif cni0 priority 50 unreachable",
        "ip rule del priority 50",
        "ip rule 50: from all iif cni0 unreachable",
    ),
    Breakage(
        "a rule by the mark of a filter",
        "iptables-nft -t mangle -A PREROUTING -i cni0 -j MARK --set-xmark 0x7/0xff;"
        " ip rule add fwmark 0x7/0xff priority 50 prohibit",
        "ip rule del priority 50; iptables-nft -t mangle -F",
        "ip rule 50: from all fwmark 0x7/0xff prohibit",
    ),
    Breakage(
        "a rule for the answers",
        "ip rule add iif flannel.1 priority 50 blackhole",
        "ip rule del priority 50",
        "ip rule 50: from all iif flannel.1 blackhole",
    ),
    Breakage(
        "a longer prefix",
        "ip route add {peer_half} via 192.168.64.254 dev eth0",
        "ip route del {peer_half}",
        "{peer_half} via 192.168.64.254",
    ),
    Breakage(
        "strict reverse path, and another route to the peer",
        "ip link add other type veth peer name far; ip link set other up; ip link set far up;"
        " ip route add {peer}/32 dev other; sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0; ip link del other",
        "rp_filter is on, and eth0 does not lead back to {peer} (other does)",
    ),
    Breakage(
        "another device has the tunnel's name",
        "until ip link del flannel.1 && ip link add flannel.1 type bridge; do :; done",
        "ip link del flannel.1",
        "flannel.1 exists and is bridge",
    ),
    Breakage(
        "another route has the peer's prefix",
        "ip route del {peer_net}; ip route replace {peer_net} via 192.168.64.254 proto static",
        "ip route del {peer_net} proto static",
        "another route has this destination",
    ),
]


def names(one: Node, two: Node) -> dict[str, str]:
    base = two.base.removesuffix(".0")
    return {
        "gateway": one.env["FLANNEL_SUBNET"].partition("/")[0],
        "address": one.address,
        "peer": two.address,
        "peer_net": f"{two.base}/24",
        "peer_half": f"{base}.0/25",
        "peer_pod": two.pod,
    }


def broken(scene: Scene) -> tuple[Node, Node]:
    """Start both nodes with a pod each that reaches the other's."""
    scene.start()
    one, two = scene.nodes
    for node in scene.nodes:
        node.attach()
    eventually("pods reach each other", lambda: one.reaches(two.pod, by_pod=True))
    one.ready()
    return one, two


def says(text: str, words: str) -> bool:
    assert words in text, text
    return True


def assert_well(one: Node, two: Node) -> None:
    one.ready()
    eventually("status is 0", lambda: is_well(one.command("status")))
    eventually("explain is 0", lambda: is_well(one.command("explain", one.pod, two.pod)))
    eventually("pods reach each other", lambda: one.reaches(two.pod, by_pod=True))


def is_well(done: Any) -> bool:
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@private
@pytest.mark.parametrize("case", BREAKAGES, ids=lambda case: case.id)
def test_all_three_name_it(tmp_path: Path, case: Breakage) -> None:
    scene = Scene(tmp_path, 2, *case.flags, **dict(case.conf))
    if not case.conf and not case.flags:
        scene.hasten()
    one, two = broken(scene)
    assert_well(one, two)
    known = names(one, two)
    words = filled(case.words, known)
    run(one, filled(case.damage, known))
    assert one.reaches(two.pod, by_pod=True) != case.cuts
    unready = "flanneld is ready" if case.ready else "flanneld is not ready yet"

    def told() -> bool:
        # The words may be those of a warning from before the first pod, if it has not looked since.
        page = one.get("readyz")
        return says(page, words) and page.startswith(unready)

    eventually("/readyz says so", told)
    status = one.command("status")
    assert status.returncode == 1, status.stdout
    assert words in status.stdout
    why = one.command("explain", one.pod, two.pod)
    assert why.returncode == 1, why.stdout
    assert words in why.stdout
    run(one, filled(case.mending, known))
    assert_well(one, two)
    assert one.log.count("problem: ") <= 12


def filled(text: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def run(node: Node, command: str) -> None:
    sh(f"ip netns exec {node.name} bash -ec {shlex.quote(command)}")


# ------------------------------------------------------------ what no command of the node breaks


def name_it(
    one: Node, two: Node, words: str, *, ready: bool = False, pods: tuple[str, str] = ("", "")
) -> None:
    """All three say the words; `status` and an `explain` of what cuts pods off end with 1."""
    pods = pods if pods[0] else (one.pod, two.pod)
    first = "flanneld is ready" if ready else "flanneld is not ready yet"
    eventually("/readyz says so", lambda: says(one.get("readyz"), words))
    assert one.get("readyz").partition("\n")[0] == first
    for command in (("status",), ("explain", *pods)):
        done = one.command(*command)
        assert words in done.stdout, done.stdout
        assert done.returncode == int(not ready or command == ("status",)), done.stdout


CHANGES = [
    ({"Backend": {"Type": "vxlan", "VNI": 2}}, "the device of VNI was flannel.1 and is flannel.2"),
    ({"Backend": {"Type": "vxlan", "Port": 4789}}, "Port was 8472 and is 4789"),
    ({"Backend": {"Type": "host-gw"}}, "Backend's Type was vxlan and is host-gw"),
    ({"Network": "10.0.0.0/8"}, "Network was 10.244.0.0/16 and is 10.0.0.0/8"),
]


@private
@pytest.mark.parametrize(("change", "words"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_configuration_that_was_changed(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    scene = Scene(tmp_path)
    scene.hasten()
    one, two = broken(scene)
    scene.etcd.configure(**{"Backend": {"Type": "vxlan"}, **change})
    name_it(one, two, words)
    assert "key /coreos.com/network/config of etcd at http://" in one.get("readyz")
    scene.etcd.configure(Backend={"Type": "vxlan"})
    assert_well(one, two)


@private
def test_a_configuration_that_is_no_more(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.hasten()
    one, two = broken(scene)
    scene.etcd.put("config", '{"Network": "everything"}')
    name_it(one, two, "no node could start now: key /coreos.com/network/config", ready=True)
    scene.etcd.configure(Backend={"Type": "vxlan"})
    assert_well(one, two)


@private
@pytest.mark.parametrize("how", ["gone", "silent"])
def test_the_store_is_away(tmp_path: Path, how: str) -> None:
    scene = Scene(tmp_path)
    one, two = broken(scene)
    scene.etcd.stop() if how == "gone" else scene.etcd.freeze()
    name_it(one, two, "what other nodes change is not seen at present: etcd", ready=True)
    scene.etcd.start() if how == "gone" else scene.etcd.thaw()
    assert_well(one, two)


@private
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSTOP, "runs but does not answer"), (signal.SIGKILL, "not run")],
    ids=["stopped", "killed"],
)
def test_the_daemon_itself(tmp_path: Path, number: signal.Signals, words: str) -> None:
    scene = Scene(tmp_path)
    one, two = broken(scene)
    assert one.process is not None
    one.process.send_signal(number)
    if number == signal.SIGKILL:
        one.status()
    for command in (("status",), ("explain", one.pod, two.pod)):
        done = one.command(*command)
        assert done.returncode == 1
        assert words in done.stdout, done.stdout
    sh(f"! ip netns exec {one.name} curl -sf -m 2 http://127.0.0.1:8081/readyz")
    if number == signal.SIGKILL:
        one.start()
    else:
        one.process.send_signal(signal.SIGCONT)
    assert_well(one, two)


@private
def test_rules_of_the_other_kind_masquerade_pods(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2, "--iptables-resync", "600")
    one, two = broken(scene)
    for rule in ("! -d 224.0.0.0/4 -j MASQUERADE", "-d 10.244.0.0/16 -j RETURN"):
        run(one, f"iptables-legacy -t nat -A POSTROUTING -s 10.244.0.0/16 {rule}")
    run(
        one,
        "iptables-legacy -t nat -A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE",
    )
    words = "iptables-legacy: table nat has a rule of an older flannel: -A POSTROUTING"
    status = one.command("status")
    assert status.returncode == 1
    assert words in status.stdout, status.stdout
    one.end()
    one.start()
    assert_well(one, two)
    assert "rules written: iptables-legacy: table nat has a rule of an older flannel" in one.log


@private
def test_the_lock_of_iptables_is_held_when_it_starts(tmp_path: Path) -> None:
    """Peers are programmed and subnet.env is written meanwhile; what is waited for is said."""
    scene = Scene(tmp_path)
    one, two = broken(scene)
    one.end()
    one.sh("ip link del flannel.1")
    one.subnet_file.unlink()
    path = legacy_alone(tmp_path)
    lock = tmp_path / "lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one.start(PATH=path, XTABLES_LOCKFILE=str(lock))
        words = f"{lock} is held by process {os.getpid()} ("
        eventually("/readyz says so", lambda: says(one.get("readyz"), words))
        eventually("the peer is programmed", lambda: f"{two.base}/24" in one.routes())
        eventually("subnet.env is there", one.subnet_file.exists)
        assert words in one.command("status").stdout
        assert words in one.log
    one.ready()
    eventually("pods reach each other", lambda: one.reaches(two.pod, by_pod=True))


def legacy_alone(folder: Path) -> str:
    """Make a folder for PATH in which iptables is iptables-legacy."""
    place = folder / "legacy"
    place.mkdir()
    for name in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            (place / (name + verb)).symlink_to("/usr/sbin/xtables-legacy-multi")
    return f"{place}:{os.environ['PATH']}:/usr/sbin:/sbin"


@private
def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    one, two = broken(scene)
    pods = (one.pod, two.pod)
    one.subnet_file.unlink()
    one.subnet_file.mkdir()
    one.sh("ip link set flannel.1 down")  # a reason to look
    name_it(one, two, "subnet.env cannot be written", pods=pods)
    one.subnet_file.rmdir()
    one.sh("ip link set flannel.1 down")
    assert_well(one, two)


@private
def test_all_other_nodes_have_another_vni(tmp_path: Path) -> None:
    """One bad peer makes nobody unready; a node that none of the others is like is the bad one."""
    scene = Scene(tmp_path)
    one, two = broken(scene)
    pods = (one.pod, two.pod)
    two.end()
    text = (
        '{{"PublicIP":"192.168.64.{0}","BackendType":"vxlan","BackendData":{{"VNI":2,'
        '"VtepMAC":"02:00:00:00:00:0{0}"}}}}'
    )
    scene.etcd.put(f"subnets/{two.base}-24", text.format(2))
    eventually("it is told", lambda: says(one.get("readyz"), "it publishes VNI 2"))
    assert one.get("readyz").startswith("flanneld is ready")
    scene.etcd.put("subnets/10.244.250.0-24", text.format(7))
    eventually("it is not ready", lambda: says(one.get("readyz"), "none of 2 other nodes"))
    name_it(one, two, "it publishes VNI 2, this network has 1", pods=pods)

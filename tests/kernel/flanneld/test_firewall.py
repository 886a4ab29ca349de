"""What packet filters of each kind do with a packet: rules as people write them, in a real kernel.

Whether a packet passes is the kernel's word: a ping, or a datagram, between two namespaces through
this one.  What is said of it is compared with that.
"""

from __future__ import annotations

import asyncio
import subprocess
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld.firewall import reading, verdict
from flanneld.firewall.packet import Packet
from flanneld.rules.programs import Programs
from tests.kernel.attaching import eventually
from tests.kernel.flanneld.packet_filter import SYSTEM
from tests.kernel.privatens import new_pod, private, sh

if TYPE_CHECKING:
    from flanneld.firewall.chains import Firewall

SOURCE, TARGET = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")
FORWARDED = Packet(SOURCE, TARGET, iif="one", oif="two")


def read(**options: bool) -> Firewall:
    return asyncio.run(reading.read(Programs(SYSTEM), **options))


def route_between() -> int:
    """Make this namespace a router between two others; the first's process."""
    pods = []
    for number, name in ((1, "one"), (2, "two")):
        pod = new_pod()
        sh(f"""
            ip link add {name} type veth peer name eth0 netns {pod}
            ip address add 10.{number}.0.1/24 dev {name}; ip link set {name} up
            nsenter -t {pod} -n ip address add 10.{number}.0.2/24 dev eth0
            nsenter -t {pod} -n ip link set eth0 up
            nsenter -t {pod} -n ip route add default via 10.{number}.0.1
        """)
        pods.append(pod)
    sh("sysctl -qw net.ipv4.ip_forward=1")
    return pods[0]


def passes(pod: int, patience_s: int = 20) -> bool:
    """Whether one of the packets that are sent each second is answered."""
    ping = f"nsenter -t {pod} -n ping -n -q -c 1 -w {patience_s} 10.2.0.2"
    return subprocess.run(ping.split(), capture_output=True, check=False).returncode == 0


def is_blocked(pod: int) -> bool:
    return not passes(pod, patience_s=1)


def nft(rules: str, hook: str = "forward", policy: str = "accept", family: str = "inet") -> str:
    chain = f"chain c {{ type filter hook {hook} priority 0; policy {policy};"
    return f"nft -f - <<'END'\ntable {family} t {{\n {chain}\n {rules}\n }}\n }}\nEND\n"


DROPPED = [
    ("iptables-legacy -A FORWARD -j DROP", "iptables (legacy), table filter, chain FORWARD"),
    ("iptables-nft -A FORWARD -j DROP", "iptables (nf_tables), table filter, chain FORWARD"),
    ("iptables-nft -A FORWARD -s 10.0.0.0/8 -o two -j REJECT", "-A FORWARD -s 10.0.0.0/8"),
    ("iptables-legacy -P FORWARD DROP", "its policy is DROP"),
    ("iptables-nft -P FORWARD DROP", "its policy is DROP"),
    ("iptables-legacy -t mangle -A FORWARD -i one -j DROP", "table mangle"),
    ("iptables-legacy -t raw -A PREROUTING -i one -j DROP", "table raw, chain PREROUTING"),
    ("iptables-nft -t mangle -A POSTROUTING -o two -j DROP", "table mangle, chain POSTROUTING"),
    (
        (
            "iptables-nft -N mine; iptables-nft -A FORWARD -j mine; iptables-nft -A mine ! -i eth7"
            " -m conntrack ! --ctstate INVALID -j DROP"
        ),
        "chain mine",
    ),
    ("iptables-nft -A FORWARD -m iprange --dst-range 10.2.0.0-10.2.0.255 -j DROP", "dst-range"),
    ("iptables-nft -A FORWARD -i on+ -m mark --mark 0x0/0xff -j DROP", "--mark"),
    (
        (
            "iptables-nft -t mangle -A PREROUTING -j MARK --set-xmark 0x8000/0x8000;"
            "iptables-nft -A FORWARD -m mark --mark 0x8000/0x8000 -j DROP"
        ),
        "--mark 0x8000/0x8000",
    ),
    (nft("drop"), "nft, table inet t, chain c: drop"),
    (nft("ip daddr 10.2.0.0/16 drop", family="ip"), "ip daddr 10.2.0.0/16 drop"),
    (nft("ct state established accept", policy="drop"), "its policy is DROP"),
    (nft('iifname "one" oifname { "two", "three" } reject'), "oifname { two, three } reject"),
    (nft('iifname vmap { "one" : drop }'), "iifname vmap { one : drop }"),
    (nft("ct state vmap { established : accept, new : drop }"), "ct state vmap"),
    (nft("ip saddr 10.0.0.1-10.1.255.255 drop", hook="prerouting"), "10.0.0.1-10.1.255.255"),
    (nft("meta nfproto ipv4 fib daddr type != local drop", hook="postrouting"), "fib daddr type"),
    (nft("meta mark and 0xf0 == 0 counter log drop"), "meta mark & 240 0 log"),
    (
        (
            "nft add table ip t; nft add set ip t s '{ type ipv4_addr; flags interval; }';"
            "nft add element ip t s '{ 10.1.0.0/16 }';"
            "nft add chain ip t c '{ type filter hook forward priority 0; }';"
            "nft add chain ip t d; nft add rule ip t c jump d; nft add rule ip t d ip saddr @s drop"
        ),
        "chain d: ip saddr @s drop",
    ),
    (
        (
            "nft add table netdev t; nft add chain netdev t c"
            " '{ type filter hook ingress device one priority 0; policy drop; }'"
        ),
        "",  # whether the device is told depends on nft's version
    ),
]


@pytest.mark.parametrize(("rules", "words"), DROPPED)
@private
def test_dropped(rules: str, words: str) -> None:
    pod = route_between()
    eventually(lambda: passes(pod), "packets pass before there is a rule")
    sh(rules)
    assert is_blocked(pod)
    firewall = read()
    assert not firewall.unknown
    found = [judged(firewall, hook) for hook in ("ingress", "prerouting", "forward", "postrouting")]
    blames = [one.dropped for one in found if one.dropped] or [
        blame for one in found for blame in one.perhaps
    ]
    assert words in str(blames[0])
    if words:
        sh(blames[0].remedy.partition(": ")[2].partition("; or")[0])
        eventually(lambda: passes(pod), f"packets pass after: {blames[0].remedy}")


def judged(firewall: Firewall, hook: str) -> verdict.Verdict:
    known = {"ingress": {"oif": ""}, "prerouting": {"oif": ""}, "postrouting": {}}
    fields = {"source": SOURCE, "target": TARGET, "iif": "one", "oif": "two"} | known.get(hook, {})
    mark = verdict.judge(firewall, "prerouting", Packet(**fields)).packet.mark  # type: ignore[arg-type]
    return verdict.judge(firewall, hook, Packet(**fields, mark=mark))  # type: ignore[arg-type]


PASSED = [
    (
        "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.1.0.0/16 -j ACCEPT;"
        "iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    ),
    "iptables-legacy -A FORWARD -i two -o two -j DROP",
    "iptables-legacy -A FORWARD -p tcp --dport 25 -j DROP",
    "iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "iptables-nft -A FORWARD -m physdev --physdev-is-bridged -j DROP",
    "iptables-nft -A FORWARD -m addrtype --dst-type LOCAL -j DROP",
    "iptables-nft -A FORWARD -s 10.1.0.77 -j DROP",
    (
        "iptables-nft -N a; iptables-nft -A FORWARD -j a; iptables-nft -A a -j RETURN;"
        "iptables-nft -A a -j DROP"
    ),
    (
        "iptables-nft -N a; iptables-nft -A FORWARD -g a; iptables-nft -A FORWARD -j DROP;"
        "iptables-nft -A a -i one -j ACCEPT; iptables-nft -A a -i two -j ACCEPT"
    ),
    nft("ip6 saddr ::/0 drop"),
    nft("meta nfproto ipv6 drop"),
    nft('oifname "one" ct state new drop'),
    nft('iifname { "one", "two" } accept', policy="drop"),
    nft("tcp dport { 1, 2-5 } drop"),
    nft("ip saddr . ip daddr { 10.1.0.9 . 10.2.0.9 } drop"),
    nft("ct state vmap { established : accept, related : accept, new : accept }\n drop"),
    nft("drop", family="bridge"),
    nft("goto x\n drop\n }\n chain x {\n return"),
]


@pytest.mark.parametrize("rules", PASSED)
@private
def test_passed(rules: str) -> None:
    pod = route_between()
    sh(rules)
    eventually(lambda: passes(pod), "packets pass")
    firewall = read()
    found = [judged(firewall, hook) for hook in ("ingress", "prerouting", "forward", "postrouting")]
    assert not [str(one.dropped) for one in found if one.dropped]


PERHAPS = [
    "iptables-nft -A FORWARD -m statistic --mode random --probability 1.0 -j DROP",
    "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m limit --limit 9/s -j ACCEPT",
    nft("limit rate 9/second accept\n drop"),
    nft("ct bytes > 7 drop"),
]


@pytest.mark.parametrize("rules", PERHAPS)
@private
def test_what_is_not_read_is_not_claimed(rules: str) -> None:
    sh(rules)
    found = verdict.judge(read(), "forward", FORWARDED)
    assert found.dropped is None
    assert len(found.perhaps) == 1


SERVICES = [
    (
        (
            "iptables-legacy -t nat -N SVC; iptables-legacy -t nat -N SEP;"
            "iptables-legacy -t nat -A PREROUTING -j SVC;"
            "iptables-legacy -t nat -A SVC -d 10.96.0.10/32 -p udp --dport 53 -j SEP;"
            "iptables-legacy -t nat -A SEP -p udp -m statistic --mode random --probability 0.5"
            " -j DNAT --to-destination 10.2.0.2:53;"
            "iptables-legacy -t nat -A SVC -d 10.96.0.11/32 -p udp -j DNAT"
            " --to-destination 10.2.0.9:1"
        ),
        ("10.2.0.2:53",),
    ),
    (
        (
            "nft -f - <<'END'\ntable ip kube-proxy {\n"
            " map services { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
            " chain a { meta l4proto udp dnat to 10.2.0.2:53\n }\n"
            " chain b { meta l4proto udp dnat to 10.2.0.3:53\n }\n"
            " chain svc { numgen random mod 2 vmap { 0 : goto a, 1 : goto b }\n }\n"
            " chain other { dnat to 10.2.0.9\n }\n"
            " chain pre { type nat hook prerouting priority dstnat;\n"
            "  ip daddr . meta l4proto . th dport vmap @services\n }\n }\nEND\n"
            "nft add element ip kube-proxy services '{ 10.96.0.10 . udp . 53 : goto svc,"
            " 10.96.0.11 . udp . 53 : goto other }'"
        ),
        ("10.2.0.2:53", "10.2.0.3:53"),
    ),
    (
        (
            "nft add table ip t; nft add chain ip t c"
            " '{ type nat hook prerouting priority -100; }';"
            "nft add rule ip t c ip daddr 10.96.0.10 dnat to numgen random mod 2 map"
            " '{ 0 : 10.2.0.2, 1 : 10.2.0.3 }'"
        ),
        ("10.2.0.2", "10.2.0.3"),
    ),
]


@pytest.mark.parametrize(("rules", "targets"), SERVICES)
@private
def test_where_a_service_leads(rules: str, targets: tuple[str, ...]) -> None:
    sh(rules)
    asked = Packet(SOURCE, ip_network("10.96.0.10"), iif="one")
    assert verdict.translations(read(translations=True), "prerouting", asked) == targets


@private
def test_legacy_is_not_asked_when_the_kernel_has_none_of_it() -> None:
    read()
    assert not sh("cat /proc/net/ip_tables_names")

"""The daemon's traffic rules in the kernel: what the tools print, and what packets look like."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import shutil
import socket
import struct
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from tests.kernel.flannel_node import GROUP, NODE, NODE_TO_PEER, OUTSIDE, PEER_POD, POD, TRAFFIC

from flanneld.rules import texts
from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs, RulesError
from flanneld.rules.texts import Traffic
from tests.kernel import flannel_node
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flanneld.rules.programs import Completed

pytestmark = [pytest.mark.kernel, needs_root]

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
ELSEWHERE = [
    Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.9.0/24")),
    Traffic(ip_network("fd00:42::/48"), ip_network("fd00:42:0:9::/64")),
]
KINDS = ["iptables-nft", "iptables-legacy", "nftables"]
FOREIGN = (
    "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n"
    "iptables -P FORWARD DROP; iptables -A FORWARD -s 172.17.0.0/16 -j ACCEPT\n"
    "ip6tables -t nat -A POSTROUTING -s fd00:17::/64 -j MASQUERADE\n"
    "nft 'add table ip other; add chain ip other mine; add rule ip other mine counter'"
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Filter:
    """The daemon's rules by one kind of packet filter, and the programs' own view of them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = SYSTEM
        if kind != "nftables":
            multi = shutil.which(f"xtables-{kind.removeprefix('iptables-')}-multi", path=SYSTEM)
            assert multi is not None
            for name in ("iptables", "ip6tables"):
                for verb in ("", "-restore", "-save"):
                    (folder / (name + verb)).symlink_to(multi)
            self.path = f"{folder}:{SYSTEM}"

    def rules(self, traffic: Any = TRAFFIC, **options: Any) -> Rules:
        options.setdefault("nftables", self.kind == "nftables")
        return Rules(traffic, programs=Programs(self.path), **options)

    def sh(self, command: str) -> str:
        return sh(command, PATH=self.path)

    def saved(self) -> list[str]:
        """Every line that iptables-save prints of both families, but for the counters'."""
        text = self.sh("iptables-save; ip6tables-save")
        return [line for line in text.splitlines() if line.startswith(("-A", ":FLANNEL"))]

    def ours(self) -> Any:
        """What is there of the daemon's, as the kind's own program prints it."""
        if self.kind == "nftables":
            return flannel_tables()
        return [line for line in self.saved() if "FLANNEL" in line]


def flannel_tables() -> list[str]:
    """The daemon's tables as nft lists them."""
    listed = json.loads(sh("nft -j list tables"))["nftables"]
    tables = [entry["table"] for entry in listed if "table" in entry]
    return sorted(
        sh(f"nft -s list table {table['family']} {table['name']}")
        for table in tables
        if table["name"].startswith("flannel")
    )


def ensure(rules: Rules) -> list[str]:
    return asyncio.run(rules.ensure())


@private
def test_iptables_save_prints_the_texts(kind: str, tmp_path: Path) -> None:
    if kind == "nftables":
        return nft_prints_the_texts(tmp_path)
    packets = Filter(kind, tmp_path)
    assert ensure(packets.rules())
    saved = packets.saved()
    for traffic in TRAFFIC:
        for chain in texts.CHAINS:
            rules = texts.iptables_rules(traffic, chain)
            at = saved.index(rules[-1])
            assert saved[at - len(rules) + 1 : at + 1] == rules
            assert saved.count(chain.jump) == 2  # one of each family
    return None


def nft_prints_the_texts(tmp_path: Path) -> None:
    assert ensure(Filter("nftables", tmp_path).rules())
    four, six = flannel_tables()
    assert four.splitlines() == [
        "table ip flannel-ipv4 {",
        '\tcomment "rules for flannel-ipv4"',
        "\tchain postrtg {",
        '\t\tcomment "chain to manage traffic masquerading by flannel"',
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        "\t\tmeta mark 0x00004000 return",
        "\t\tip saddr 10.42.1.0/24 ip daddr 10.42.0.0/16 return",
        "\t\tip saddr 10.42.0.0/16 ip daddr 10.42.1.0/24 return",
        "\t\tip saddr != 10.42.0.0/16 ip daddr 10.42.1.0/24 return",
        "\t\tip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
        "\t\tip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade fully-random",
        "\t}",
        "",
        "\tchain forward {",
        '\t\tcomment "chain to accept flannel traffic"',
        "\t\ttype filter hook forward priority filter; policy accept;",
        "\t\tip saddr 10.42.0.0/16 accept",
        "\t\tip daddr 10.42.0.0/16 accept",
        "\t}",
        "}",
    ]
    assert "ip6 saddr != fd00:42::/48 ip6 daddr fd00:42:0:1::/64 return" in six


@private
def test_right_rules_are_read_and_not_written(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    ensure(packets.rules())
    generation = sh("nft -a list ruleset")  # handles would change
    assert ensure(packets.rules()) == []
    assert sh("nft -a list ruleset") == generation
    assert asyncio.run(packets.rules().check()) == []


class Counted(Programs):
    """Programs that note what was run."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.ran: list[str] = []

    async def run(self, argv: Sequence[str], text: str = "") -> Completed:
        self.ran.append(argv[0])
        return await super().run(argv, text)


@private
def test_nothing_is_run_while_nothing_changes(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    programs = Counted(packets.path)
    rules = Rules(TRAFFIC, nftables=kind == "nftables", programs=programs)
    ensure(rules)
    ensure(rules)
    programs.ran.clear()
    for _ in range(3):
        assert ensure(rules) == []
    looks = ["iptables-save", "ip6tables-save"] * 3 if kind == "iptables-legacy" else []
    assert programs.ran == looks
    packets.sh("nft add table ip other" if kind == "nftables" else "iptables -A INPUT -j ACCEPT")
    assert ensure(rules) == []  # somebody else's change is a reason to look
    assert len(programs.ran) == len(looks) + 2
    packets.sh(DAMAGE[kind.partition("-")[0]][0])
    assert ensure(rules)


DAMAGE = {
    "iptables": [
        "iptables -t nat -F FLANNEL-POSTRTG",
        "iptables -t nat -F",
        "iptables -t nat -F; iptables -t nat -X; iptables -F; iptables -X",
        "iptables -t nat -D FLANNEL-POSTRTG 5",
        "iptables -t nat -I FLANNEL-POSTRTG -j RETURN",
        "ip6tables -A FLANNEL-FWD -j DROP",
        "iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
        "iptables -F FORWARD",
    ],
    "nftables": [
        "nft flush chain ip flannel-ipv4 postrtg",
        "nft flush ruleset",
        "nft delete table ip6 flannel-ipv6",
        "nft delete chain ip flannel-ipv4 forward",
        "nft insert rule ip flannel-ipv4 postrtg ip saddr 10.42.1.9 drop",
        "nft add rule ip flannel-ipv4 postrtg meta mark 0x4000 return",
        "nft 'delete chain ip flannel-ipv4 postrtg; add chain ip flannel-ipv4 postrtg'",
    ],
}


@private
def test_damage_is_found_and_repaired(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    rules = packets.rules()
    ensure(rules)
    right = packets.ours()
    for damage in DAMAGE[kind.partition("-")[0]]:
        packets.sh(damage)
        assert packets.ours() != right, damage
        assert asyncio.run(rules.check()), damage
        assert ensure(rules), damage
        assert packets.ours() == right, damage
        assert ensure(rules) == [], damage


@private
def test_a_changed_subnet_and_a_changed_network_leave_nothing(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    ensure(packets.rules(ELSEWHERE))
    ensure(packets.rules(TRAFFIC))
    fresh = packets.ours()
    assert "10.42.9" not in str(fresh)
    ensure(packets.rules([Traffic(ip_network("10.99.0.0/16"), ip_network("10.99.1.0/24"))],
                         previous=[traffic.network for traffic in TRAFFIC]))  # fmt: skip
    assert "10.42" not in str(packets.ours())
    assert "fd00" not in str(packets.ours())
    assert "10.99.1" in str(packets.ours())


@private
def test_foreign_rules_are_untouched(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    packets.sh(FOREIGN)
    before = [packets.saved(), sh("nft -s list table ip other")]
    rules = packets.rules()
    ensure(rules)
    assert [line for line in packets.saved() if "FLANNEL" not in line] == before[0]
    assert asyncio.run(rules.remove())
    assert packets.ours() == []
    assert [packets.saved(), sh("nft -s list table ip other")] == before
    assert asyncio.run(rules.remove()) == []


@private
def test_another_network_on_the_node_keeps_its_rules(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    one = packets.rules()
    two = packets.rules([Traffic(ip_network("10.50.0.0/16"), ip_network("10.50.3.0/24"))])
    ensure(one)
    assert ensure(two)
    assert ensure(one) == ensure(two) == []
    assert ensure(packets.rules()) == []
    assert "10.42.1.0/24" in str(packets.ours())
    assert "10.50.3.0/24" in str(packets.ours())


@pytest.mark.parametrize("to_nftables", [True, False])
@private
def test_switching_removes_the_other_filter_s_rules(to_nftables: bool, tmp_path: Path) -> None:  # noqa: FBT001
    packets = Filter("iptables-nft", tmp_path)
    ensure(packets.rules(nftables=not to_nftables))
    ensure(packets.rules(nftables=to_nftables))
    assert bool(flannel_tables()) == to_nftables
    assert bool(packets.ours()) != to_nftables


@private
def test_nftables_needs_no_iptables(tmp_path: Path) -> None:
    nft = shutil.which("nft", path=SYSTEM)
    assert nft is not None
    (tmp_path / "nft").symlink_to(nft)
    only = Programs(str(tmp_path))
    rules = Rules(TRAFFIC, nftables=True, programs=only)
    ensure(rules)
    assert len(flannel_tables()) == 2
    assert asyncio.run(rules.remove())
    assert flannel_tables() == []
    with pytest.raises(RulesError, match=r"iptables is not installed.*EnableNFTables"):
        ensure(Rules(TRAFFIC, nftables=False, programs=only))


@private
def test_masquerading_and_forwarding_can_each_be_off(kind: str, tmp_path: Path) -> None:
    packets = Filter(kind, tmp_path)
    ensure(packets.rules())
    four, six = TRAFFIC
    before = [six.network]
    ensure(packets.rules([replace(four, masquerade=False)], previous=before))
    assert "10.42.0.0/16" in str(packets.ours())
    assert "postrtg" not in str(packets.ours()).lower()
    ensure(packets.rules([replace(four, masquerade=False, forward=False)], previous=before))
    assert packets.ours() == []


@private
def test_packets_are_translated_alike_by_either_filter(kind: str, tmp_path: Path) -> None:
    node = flannel_node.Node()
    packets = Filter(kind, tmp_path)
    ensure(packets.rules())
    pod, outside = node.udp(node.pod, port=7000), node.udp(node.outside, port=7000)
    peer = node.udp(node.peer, PEER_POD, 7000)
    host = node.udp(None, NODE)
    marked = node.udp(None, NODE)
    marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x4000)
    gateway = node.udp(None, flannel_node.GATEWAY)
    gateway.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_MULTICAST_IF,
        struct.pack("=4s4si", b"", socket.inet_aton(NODE), 0),
    )
    outside.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        socket.inet_aton(GROUP) + socket.inet_aton(OUTSIDE),
    )
    cases = [
        ("pod to outside", pod, outside, OUTSIDE, NODE),
        ("outside to pod", outside, pod, POD, OUTSIDE),
        ("pod to a peer's pod", pod, peer, PEER_POD, POD),
        ("a peer's pod to pod", peer, pod, POD, PEER_POD),
        ("outside to a peer's pod", outside, peer, PEER_POD, NODE_TO_PEER),
        ("host to a peer's pod", host, peer, PEER_POD, NODE_TO_PEER),
        ("host to pod", host, pod, POD, NODE),
        ("host to outside", host, outside, OUTSIDE, NODE),
        ("marked, to a peer's pod", marked, peer, PEER_POD, NODE),
        ("gateway to a group", gateway, outside, GROUP, flannel_node.GATEWAY),
    ]
    seen = {name: node.source_seen(a, b, to) for name, a, b, to, _ in cases}
    assert seen == {name: source for name, *_, source in cases}


@private
def test_no_packet_is_unmasqueraded_while_rules_are_replaced(kind: str, tmp_path: Path) -> None:
    """Every datagram is a connection of its own: conntrack would hide a gap from a known one."""
    node = flannel_node.Node()
    packets = Filter(kind, tmp_path)
    ensure(packets.rules())
    outside = node.udp(node.outside, port=7000)
    outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sources: set[str] = set()
    replacements = received = 0

    async def rewrite() -> None:
        nonlocal replacements
        for turn in range(30):  # the order is wrong by turns, as an older daemon's rules would be
            traffic = TRAFFIC if turn % 2 else ELSEWHERE
            assert await packets.rules(traffic).ensure()
            replacements += 1

    async def send() -> None:
        while replacements < 30:
            for _ in range(20):
                with contextlib.closing(node.udp(node.pod)) as fresh:
                    fresh.sendto(b"x", (OUTSIDE, 7000))
            await asyncio.sleep(0)

    async def run() -> None:
        await asyncio.gather(rewrite(), send())

    asyncio.run(run())
    while select.select([outside], [], [], 0.2)[0]:
        sources.add(outside.recvfrom(10)[1][0])
        received += 1
    assert replacements == 30
    assert received > 300
    assert sources == {NODE}

"""The daemon's traffic rules in the kernel: what the tools print, and how damage is repaired."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld.rules import texts
from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs, RulesError
from flanneld.rules.texts import Traffic
from tests.kernel.flanneld.packet_filter import (
    ELSEWHERE,
    KINDS,
    SYSTEM,
    TRAFFIC,
    Filter,
    ensure,
    flannel_tables,
)
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flanneld.rules.programs import Completed

pytestmark = [pytest.mark.kernel, needs_root]

FOREIGN = (
    "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n"
    "iptables -P FORWARD DROP; iptables -A FORWARD -s 172.17.0.0/16 -j ACCEPT\n"
    "ip6tables -t nat -A POSTROUTING -s fd00:17::/64 -j MASQUERADE\n"
    "nft 'add table ip other; add chain ip other mine; add rule ip other mine counter'"
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
    assert programs.ran == []
    packets.sh("nft add table ip other" if kind == "nftables" else "iptables -A INPUT -j ACCEPT")
    assert ensure(rules) == []  # somebody else's change is a reason to look
    assert len(programs.ran) == 2
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
        "iptables -A FLANNEL-FWD -s 10.0.0.0/255.0.255.0 -j ACCEPT",
        "iptables -A FLANNEL-FWD -m comment --comment 'with -s in it' -j ACCEPT",
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
    assert asyncio.run(one.remove())
    assert ensure(two) == []
    assert "10.42" not in str(packets.ours())
    assert asyncio.run(one.remove()) == []
    assert asyncio.run(two.remove())
    assert packets.ours() == []


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
def test_an_unused_program_that_does_not_work_is_no_hindrance(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packets = Filter(kind, tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("ip6tables-save", "ip6tables-restore"):
        (broken / name).write_text("#!/bin/sh\necho 'no ip6_tables here' >&2; exit 1\n")
        (broken / name).chmod(0o755)
    packets.path = f"{broken}:{packets.path}"
    rules = packets.rules(TRAFFIC[:1])
    assert ensure(rules)
    assert "rules of an earlier run, if there are any, stay: read rules with" in caplog.text
    shown = "nft list ruleset" if kind == "nftables" else "iptables-save"
    assert "10.42.1.0/24" in packets.sh(shown)
    with pytest.raises(RulesError, match="no ip6_tables here"):
        asyncio.run(rules.remove())
    assert flannel_tables() == []
    assert "FLANNEL" not in packets.sh("iptables-save")


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

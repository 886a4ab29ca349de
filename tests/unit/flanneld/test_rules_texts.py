"""The rules' texts: Go's, word for word, but for one that Go has wrong."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from flanneld.rules import iptables, texts
from flanneld.rules.programs import RulesError
from flanneld.rules.texts import Traffic

V4 = Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24"))
V6 = Traffic(ip_network("2001:cafe:42::/56"), ip_network("2001:cafe:42:1::/64"))
NO_RANDOM = Traffic(V4.network, V4.subnet, fully_random=False)

IPTABLES_4 = """\
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" \
-j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" \
-j MASQUERADE --random-fully
"""

NFT_4 = """\
add table ip flannel-ipv4
delete table ip flannel-ipv4
add table ip flannel-ipv4 { comment "rules for flannel-ipv4" ; }
add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; policy accept; \
comment "chain to manage traffic masquerading by flannel" ; }
add rule ip flannel-ipv4 postrtg meta mark 0x4000 return
add rule ip flannel-ipv4 postrtg ip saddr 10.42.1.0/24 ip daddr 10.42.0.0/16 return
add rule ip flannel-ipv4 postrtg ip saddr 10.42.0.0/16 ip daddr 10.42.1.0/24 return
add rule ip flannel-ipv4 postrtg ip saddr != 10.42.0.0/16 ip daddr 10.42.1.0/24 return
add rule ip flannel-ipv4 postrtg ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 \
masquerade fully-random
add rule ip flannel-ipv4 postrtg ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 \
masquerade fully-random
add chain ip flannel-ipv4 forward { type filter hook forward priority filter; policy accept; \
comment "chain to accept flannel traffic" ; }
add rule ip flannel-ipv4 forward ip saddr 10.42.0.0/16 accept
add rule ip flannel-ipv4 forward ip daddr 10.42.0.0/16 accept
"""


def test_iptables_masquerades_in_go_s_words() -> None:
    assert texts.iptables_rules(V4, texts.POSTROUTING) == IPTABLES_4.splitlines()
    assert texts.POSTROUTING.jump == (
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
    )


def test_iptables_forwards_in_go_s_words() -> None:
    assert texts.iptables_rules(V4, texts.FORWARD) == [
        '-A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
        '-A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
    ]
    assert texts.FORWARD.jump == (
        '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'
    )


def test_nft_writes_one_transaction_with_the_fourth_rule_as_in_iptables() -> None:
    assert texts.nft_script(4, texts.nft_rules(V4)) == NFT_4


@pytest.mark.parametrize("text", [*texts.iptables_rules(V6, texts.POSTROUTING)[1:]])
def test_ipv6_differs_in_addresses_only(text: str) -> None:
    as_4 = (
        text.replace("2001:cafe:42:1::/64", "10.42.1.0/24")
        .replace("2001:cafe:42::/56", "10.42.0.0/16")
        .replace("ff00::/8", "224.0.0.0/4")
    )
    assert as_4 != text
    assert as_4 in IPTABLES_4.splitlines()


def test_nft_has_a_table_of_its_own_for_ipv6() -> None:
    script = texts.nft_script(6, texts.nft_rules(V6))
    assert "add rule ip6 flannel-ipv6 postrtg ip6 saddr != 2001:cafe:42::/56 ip6 daddr" in script
    assert "ip6 daddr != ff00::/8 masquerade fully-random\n" in script
    assert " ip " not in script


def test_ports_are_chosen_as_before_where_fully_random_is_off() -> None:
    assert [
        rule.replace(" --random-fully", "") for rule in texts.iptables_rules(V4, texts.POSTROUTING)
    ] == texts.iptables_rules(NO_RANDOM, texts.POSTROUTING)
    assert texts.nft_script(4, texts.nft_rules(NO_RANDOM)) == NFT_4.replace(" fully-random", "")


def test_what_is_not_wanted_has_no_rules() -> None:
    nothing = Traffic(V4.network, V4.subnet, masquerade=False, forward=False)
    assert [texts.iptables_rules(nothing, chain) for chain in texts.CHAINS] == [[], []]
    assert texts.nft_script(4, texts.nft_rules(nothing)) == (
        "add table ip flannel-ipv4\ndelete table ip flannel-ipv4\n"
    )


@pytest.mark.parametrize(
    ("printed", "known"),
    [
        ("iptables v1.8.9 (nf_tables)", True),
        ("iptables v1.8.9 (legacy)\n", True),
        ("iptables v1.6.2", True),
        ("iptables v1.6.1", False),
        ("iptables v1.4.21", False),
        ("ip6tables v2.0", True),
    ],
)
def test_random_fully_goes_by_the_version(printed: str, known: bool) -> None:  # noqa: FBT001
    assert iptables.knows_fully_random(printed) is known


def test_a_version_that_cannot_be_read_is_named() -> None:
    with pytest.raises(RulesError, match="busybox"):
        iptables.knows_fully_random("busybox iptables\n")

"""nftables: what nft prints as JSON is read back into the words that it was told."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from flanneld.rules import listed, texts
from flanneld.rules.texts import Traffic

V4 = Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24"))
OURS = [V4.network]
HOOKED = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}


def address(side: str, network: str, op: str = "==") -> dict[str, Any]:
    base, length = network.split("/")
    return {
        "match": {
            "op": op,
            "left": {"payload": {"protocol": "ip", "field": side}},
            "right": {"prefix": {"addr": base, "len": int(length)}},
        }
    }


def masquerade_rules(network: str, pods: str, flags: object = "fully-random") -> list[Any]:
    """The six rules as nft 1.0.6 prints them."""
    mark = {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 16384}}
    translate = {"masquerade": {"flags": flags}}
    return [
        [mark, {"return": None}],
        [address("saddr", pods), address("daddr", network), {"return": None}],
        [address("saddr", network), address("daddr", pods), {"return": None}],
        [address("saddr", network, "!="), address("daddr", pods), {"return": None}],
        [address("saddr", network), address("daddr", "224.0.0.0/4", "!="), translate],
        [address("saddr", network, "!="), address("daddr", network), translate],
    ]


def forward_rules(network: str) -> list[Any]:
    return [
        [address("saddr", network), {"accept": None}],
        [address("daddr", network), {"accept": None}],
    ]


RIGHT = masquerade_rules("10.42.0.0/16", "10.42.1.0/24")


def table(
    rules: list[Any], *, hooked: dict[str, Any] = HOOKED, forward: list[Any] | None = None
) -> str:
    forwarded = forward_rules("10.42.0.0/16") if forward is None else forward
    filtering = {"type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    entries: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "flannel-ipv4"}},
        {"chain": {"name": "postrtg", **hooked}},
        {"chain": {"name": "forward", **filtering}},
    ]
    entries += [{"rule": {"chain": "postrtg", "expr": rule}} for rule in rules]
    entries += [{"rule": {"chain": "forward", "expr": rule}} for rule in forwarded]
    return json.dumps({"nftables": entries})


def faults(text: str) -> list[str]:
    return listed.faults(listed.parse(text), texts.nft_rules(V4), OURS)


@pytest.mark.parametrize("flags", ["fully-random", ["fully-random"]])
def test_right_rules_are_right_however_nft_prints_a_flag(flags: object) -> None:
    assert faults(table(masquerade_rules("10.42.0.0/16", "10.42.1.0/24", flags))) == []


GO_S_FOURTH = [
    address("saddr", "10.42.1.0/24", "!="),
    address("daddr", "10.42.0.0/16"),
    {"return": None},
]
SET = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (RIGHT[:-1], "lacks: ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade"),
        ([*RIGHT, RIGHT[1]], "in another order, or twice"),
        ([RIGHT[1], RIGHT[0], *RIGHT[2:]], "in another order, or twice"),
        ([*RIGHT[:3], GO_S_FOURTH, *RIGHT[4:]], "should not have: ip saddr != 10.42.1.0/24 ip"),
        ([[SET, {"drop": None}], *RIGHT], 'should not have: [{"match"'),
        (masquerade_rules("10.42.0.0/16", "10.42.1.0/24", "random"), "lacks: ip saddr 10.42.0.0"),
        ([], "lacks: meta mark 0x4000 return"),
    ],
    ids=["missing", "twice", "order", "Go's", "strange", "flag", "flushed"],
)
def test_what_is_wrong_is_found(rules: list[Any], says: str) -> None:
    assert any(says in fault for fault in faults(table(rules)))


def test_a_chain_hooked_in_elsewhere_is_wrong() -> None:
    assert "not ('nat', 'postrouting', 100, 'accept')" in "".join(
        faults(table(RIGHT, hooked=HOOKED | {"prio": 200}))
    )


def test_the_rules_of_another_network_are_kept_behind_ours() -> None:
    theirs = masquerade_rules("10.50.0.0/16", "10.50.3.0/24")
    assert faults(table([*RIGHT, *theirs[1:]])) == []
    chains = listed.parse(table(theirs, forward=forward_rules("10.50.0.0/16")))
    whole = listed.replacement(chains, texts.nft_rules(V4), OURS)
    their_texts = texts.nft_rules(Traffic(ip_network("10.50.0.0/16"), ip_network("10.50.3.0/24")))
    assert whole == {
        texts.POSTRTG: [*texts.nft_rules(V4)[texts.POSTRTG], *their_texts[texts.POSTRTG][1:]],
        texts.FORWARDING: [
            *texts.nft_rules(V4)[texts.FORWARDING],
            *their_texts[texts.FORWARDING],
        ],
    }


def test_when_nothing_is_wanted_another_network_keeps_its_mark() -> None:
    theirs = masquerade_rules("10.50.0.0/16", "10.50.3.0/24")
    chains = listed.parse(table([*RIGHT, *theirs[1:]]))
    whole = listed.replacement(chains, {}, OURS)
    assert whole[texts.POSTRTG][0] == "meta mark 0x4000 return"
    assert len(whole[texts.POSTRTG]) == len(theirs)
    assert texts.FORWARDING not in whole

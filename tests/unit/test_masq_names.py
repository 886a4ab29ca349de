"""Chain names, comments and rule text: known values of the reference plugins."""

from __future__ import annotations

import hashlib

import pytest

from cni.cidr import parse_prefix
from cni_flannel.kernel import iptables, rulenames

V4 = parse_prefix("10.7.0.2/24")
V6 = parse_prefix("fd00:7::2/64")


@pytest.mark.parametrize(
    ("network", "container_id", "chain"),
    [
        ("test", "1234", "CNI-2bbe0c48b91a7d1b8a6753a8"),
        ("testalongnamethatdoesnotmakesense", "1234", "CNI-374f33fe84ab0ed84dcdebe3"),
    ],
)
def test_chain_names_are_the_reference_s(network: str, container_id: str, chain: str) -> None:
    assert rulenames.chain(network, container_id) == chain
    digest = hashlib.sha512((network + container_id).encode()).hexdigest()
    assert chain == "CNI-" + digest[:24]


@pytest.mark.parametrize(
    ("network", "container_id", "ifname", "comment"),
    [
        (
            "unit-test",
            "one",
            "eth0",
            "6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one",
        ),
        (
            "alternate",
            "three",
            "net1",
            "82783ef24bdc7036-acb19d111858e348, net: alternate, if: net1, id: three",
        ),
    ],
)
def test_nft_comments_are_the_reference_s(
    network: str, container_id: str, ifname: str, comment: str
) -> None:
    assert rulenames.nft_comment(network, container_id, ifname) == comment
    head = rulenames.nft_attachment(network, container_id, ifname)
    assert len(head) == rulenames.NFT_ATTACHMENT_SIZE
    assert comment.startswith(head + ",")
    assert head.startswith(rulenames.nft_network(network) + "-")


def test_an_nft_comment_is_cut_by_bytes_and_keeps_no_quote() -> None:
    comment = rulenames.nft_comment("n" * 60, "c" * 64, 'ä"b')
    assert len(comment.encode("utf-8", "surrogateescape")) == rulenames.NFT_COMMENT_MAX
    assert '"' not in comment
    # half of a two-byte letter
    cut = rulenames.nft_comment("n" * 79, "c", "ä" * 7)
    assert cut.encode("utf-8", "surrogateescape").endswith(b", if: \xc3\xa4\xc3")


def test_an_iptables_comment_fits() -> None:
    assert rulenames.comment("net", "cid") == 'name: "net" id: "cid"'
    assert len(rulenames.comment("n" * 200, "c" * 200)) == rulenames.XT_COMMENT_MAX


def test_words_are_quoted_as_iptables_prints_them() -> None:
    assert rulenames.quoted("a\"b'c\\d") == '"a\\"b\\\'c\\\\d"'


def test_every_subnet_is_accepted_before_the_masquerading() -> None:
    second, third = parse_prefix("10.8.0.2/24"), parse_prefix("10.7.0.3/24")
    rules = iptables.Rules("net", "cid", [V4, second, third])
    words = [line.split(" ") for line in rules.all()]
    assert [line[-1] for line in words] == [
        "ACCEPT",
        "ACCEPT",
        "MASQUERADE",
        *[rules.chain] * 3,
    ]
    assert [line[3] for line in words if line[1] == "POSTROUTING"] == [
        "10.7.0.2/32",
        "10.8.0.2/32",
        "10.7.0.3/32",
    ]


def test_prefixes_are_parted_by_family() -> None:
    assert iptables.by_family([V6, V4]) == [[V4], [V6]]
    assert iptables.by_family([V6]) == [[V6]]
    assert iptables.by_family([]) == []


def test_chains_are_found_by_comment_and_checked_by_hash() -> None:
    ours = iptables.Rules("net", "cid", [V4])
    portmap = f"-A CNI-DN-0011 {ours.masquerade.split(' ', 2)[2]}"
    other = iptables.Rules("network", "cid", [V4]).all()
    odd = ["-P POSTROUTING ACCEPT", f"-N {ours.chain}", '-A X -m comment --comment "name: \\"net']
    copied = [line.replace(ours.chain, rulenames.chain("net", "else")) for line in ours.all()]
    assert iptables.chains_of([*other, portmap, *odd, *copied], "net") == []
    assert iptables.chains_of([*other, *ours.all(), portmap], "net") == [ours.chain]
    assert iptables.chains_of(ours.jumps, "net") == [ours.chain]

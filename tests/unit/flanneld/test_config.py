"""net-conf.json: every field's default, and every refusal with the Go daemon's words."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld.config import ConfigError, parse

V6 = {"EnableIPv4": False, "EnableIPv6": True}


def conf(**fields: Any) -> str:
    return json.dumps(fields)


def test_defaults() -> None:
    found = parse(conf(Network="10.244.0.0/16"))
    assert found.pool is not None
    assert found.pool.length == 24
    assert found.pool.first == IPv4Network("10.244.1.0/24")
    assert found.pool.last == IPv4Network("10.244.255.0/24")
    assert (found.pool6, found.network6) == (None, None)
    assert (found.backend_type, found.backend, found.nftables) == ("udp", {}, False)


def test_ipv6_defaults() -> None:
    found = parse(conf(**V6, IPv6Network="fd00::/48"))
    assert found.pool6 is not None
    assert found.pool6.length == 64
    assert found.pool6.first == IPv6Network("fd00:0:0:1::/64")
    assert found.pool6.last == IPv6Network("fd00:0:0:ffff::/64")
    assert found.network is None


@pytest.mark.parametrize(
    ("network", "length"),
    [("10.0.0.0/8", 24), ("10.0.0.0/22", 24), ("10.0.0.0/23", 25), ("10.0.0.0/28", 30)],
)
def test_subnet_length_follows_the_network(network: str, length: int) -> None:
    found = parse(conf(Network=network))
    assert found.pool is not None
    assert found.pool.length == length


@pytest.mark.parametrize(
    ("network", "length"),
    [("fd00::/48", 64), ("fd00::/62", 64), ("fd00::/63", 65), ("fd00::/124", 126)],
)
def test_ipv6_subnet_length_follows_the_network(network: str, length: int) -> None:
    found = parse(conf(**V6, IPv6Network=network))
    assert found.pool6 is not None
    assert found.pool6.length == length


def test_keys_in_any_case_unknown_ones_and_host_bits() -> None:
    found = parse(
        '{"network":"10.244.7.9/16","SUBNETLEN":26,"Other":[1],"backend":{"type":"VXLAN"}}'
    )
    assert found.network == IPv4Network("10.244.0.0/16")
    assert found.pool is not None
    assert found.pool.length == 26
    assert found.backend_type == "vxlan"
    assert found.backend == {"type": "VXLAN"}


def test_first_and_last_subnet() -> None:
    found = parse(
        conf(Network="10.0.0.0/8", SubnetLen=20, SubnetMin="10.10.0.0", SubnetMax="10.99.0.0")
    )
    assert found.pool is not None
    assert found.pool.first == IPv4Network("10.10.0.0/20")
    assert found.pool.last == IPv4Network("10.99.0.0/20")
    assert found.pool.holds(IPv4Network("10.99.0.0/20"))
    assert not found.pool.holds(IPv4Network("10.99.16.0/20"))
    assert not found.pool.holds(IPv4Network("10.10.0.0/21"))


def test_an_empty_backend_has_no_type() -> None:
    assert parse(conf(Network="10.0.0.0/8", Backend={})).backend_type == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "please define a correct Network parameter in the flannel config"),
        ({"Network": "10.0.0.0"}, "please define a correct Network parameter"),
        ({"Network": "fd00::/48"}, "please define a correct Network parameter"),
        ({"Network": 7}, "please define a correct Network parameter"),
        ({"Network": "10.0.0.0/8", "EnableIPv6": True}, "a correct IPv6Network parameter"),
        ({"EnableIPv4": False}, "both false"),
        ({"Network": "10.0.0.0/29"}, "network is too small. Minimum useful network prefix is /28"),
        ({"Network": "10.0.0.0/8", "SubnetLen": 31}, "SubnetLen must be less than /31"),
        ({"Network": "10.0.0.0/8", "SubnetLen": 33}, "SubnetLen must be a whole number"),
        ({"Network": "10.0.0.0/8", "SubnetLen": -1}, "SubnetLen must be a whole number"),
        ({"Network": "10.0.0.0/8", "SubnetLen": "24"}, 'SubnetLen must be a whole number.*"24"'),
        ({"Network": "10.0.0.0/16", "SubnetLen": 17}, "accommodate at least four subnets"),
        (
            {"Network": "10.0.0.0/16", "SubnetMin": "10.1.0.0"},
            "SubnetMin is not in the range of the Network",
        ),
        (
            {"Network": "10.0.0.0/16", "SubnetMax": "10.1.0.0"},
            "SubnetMax is not in the range of the Network",
        ),
        (
            {"Network": "10.0.0.0/16", "SubnetMin": "10.0.0.5"},
            "SubnetMin is not on a SubnetLen boundary: 10.0.0.5",
        ),
        (
            {"Network": "10.0.0.0/16", "SubnetMin": "10.0.9.0", "SubnetMax": "10.0.8.0"},
            "SubnetMin 10.0.9.0 is above SubnetMax 10.0.8.0",
        ),
        ({"Network": "10.0.0.0/16", "SubnetMin": "x"}, "SubnetMin is not an address"),
        ({"Network": "10.0.0.0/16", "Backend": 7}, "error decoding Backend property of config"),
        ({"Network": "10.0.0.0/16", "Backend": {"Type": 7}}, "Type must be a string, not 7"),
        ({"Network": "10.0.0.0/16", "EnableNFTables": 1}, "EnableNFTables must be true or false"),
        ({**V6, "IPv6Network": "fd00::/125"}, "IPv6Network is too small.*/124"),
        ({**V6, "IPv6Network": "fd00::/48", "IPv6SubnetLen": 127}, "must be less than /127"),
        ({**V6, "IPv6Network": "fd00::/48", "IPv6SubnetLen": 49}, "at least four subnets"),
        (
            {**V6, "IPv6Network": "fd00::/48", "IPv6SubnetMin": "fe00::"},
            "IPv6SubnetMin is not in the range of the IPv6Network",
        ),
        (
            {**V6, "IPv6Network": "fd00::/48", "IPv6SubnetMax": "fd00::1"},
            "IPv6SubnetMax is not on a SubnetLen boundary",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_go_s_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(conf(**fields))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="network configuration is not"):
        parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["Network", "SubnetLen", "SubnetMin", "SubnetMax", "EnableIPv4", "EnableIPv6", "IPv6Network"]
)


@given(st.dictionaries(KEYS, JSON | st.sampled_from(["10.0.0.0/8", "fd00::/48", "10.1.0.0", 24])))
def test_a_configuration_is_read_or_refused_and_nothing_else(fields: dict[str, Any]) -> None:
    try:
        found = parse(json.dumps(fields))
    except ConfigError:
        return
    assert found.network or found.network6

"""What host-local reads from a conf, and how it refuses a wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.cidr import parse_prefix
from cni.errors import CNIError
from ipam.conf import Conf
from ipam.request import read_request
from ipam.subnet_env import SubnetEnv

if TYPE_CHECKING:
    from ipam.request import Request

V4 = {"subnet": "10.5.0.0/24"}
V6 = {"subnet": "fd00::/64"}


def node() -> SubnetEnv:
    return SubnetEnv(
        "subnet.env",
        [parse_prefix("10.244.0.0/16")],
        parse_prefix("10.244.1.0/24"),
        [parse_prefix("fc00::/48")],
        parse_prefix("fc00:0:0:1::/64"),
        1450,
        True,
    )


def request(ipam: Any, cni_args: str = "", **net: Any) -> Request:
    conf = {"name": "net", "cniVersion": "1.0.0", "ipam": ipam, **net}
    return read_request(Conf(conf), cni_args, node)


def ranges(ipam: Any, **net: Any) -> list[str]:
    return [str(one) for one in request(ipam, **net).range_sets]


READ = [
    ("defaults v4", {"ranges": [[V4]]}, ["10.5.0.1-10.5.0.254"]),
    ("defaults v6", {"ranges": [[V6]]}, ["fd00::1-fd00::ffff:ffff:ffff:ffff"]),
    (
        "dual stack",
        {"ranges": [[V4], [V6]]},
        ["10.5.0.1-10.5.0.254", "fd00::1-fd00::ffff:ffff:ffff:ffff"],
    ),
    ("legacy", {"subnet": "10.6.0.0/29", "rangeStart": "10.6.0.3"}, ["10.6.0.3-10.6.0.6"]),
    (
        "legacy first",
        {**V4, "ranges": [[V6]]},
        ["10.5.0.1-10.5.0.254", "fd00::1-fd00::ffff:ffff:ffff:ffff"],
    ),
    (
        "two ranges in a set",
        {"ranges": [[{**V4, "rangeEnd": "10.5.0.9"}, {**V4, "rangeStart": "10.5.0.20"}]]},
        ["10.5.0.1-10.5.0.9,10.5.0.20-10.5.0.254"],
    ),
    (
        "network address usable",
        {"ranges": [[{**V4, "rangeStart": "10.5.0.0"}]]},
        ["10.5.0.0-10.5.0.254"],
    ),
    ("broadcast usable", {"ranges": [[{**V4, "rangeEnd": "10.5.0.255"}]]}, ["10.5.0.1-10.5.0.255"]),
    ("keys in any case", {"RANGES": [[{"SubNet": "10.5.0.0/30"}]]}, ["10.5.0.1-10.5.0.2"]),
    (
        "the node's",
        {"subnetFile": "f"},
        ["10.244.1.1-10.244.1.254", "fc00:0:0:1::1-fc00::1:ffff:ffff:ffff:ffff"],
    ),
    (
        "the node's, narrowed by family",
        {"subnetFile": "f", "rangeStart": "10.244.1.10", "rangeEnd": "fc00:0:0:1::99"},
        ["10.244.1.10-10.244.1.254", "fc00:0:0:1::1-fc00:0:0:1::99"],
    ),
    ("ranges win over the node's", {"subnetFile": "f", "ranges": [[V4]]}, ["10.5.0.1-10.5.0.254"]),
]


@pytest.mark.parametrize(
    ("ipam", "expected"), [case[1:] for case in READ], ids=[c[0] for c in READ]
)
def test_ranges(ipam: Any, expected: list[str]) -> None:
    assert ranges(ipam) == expected


def test_runtime_ranges_come_first() -> None:
    runtime = {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}
    assert ranges({"ranges": [[V4]]}, runtimeConfig=runtime)[0] == "10.9.0.1-10.9.0.254"


def test_flat_runtime_ranges_make_one_set_a_family() -> None:
    flat = [{"Subnet": "10.9.0.0/30"}, {"Subnet": "fd00::/126"}, {"Subnet": "10.10.0.0/30"}]
    found = ranges({}, RuntimeConfig={"IPRanges": flat})
    assert found == ["10.9.0.1-10.9.0.2,10.10.0.1-10.10.0.2", "fd00::1-fd00::3"]


def test_wanted_addresses() -> None:
    found = request(
        {"ranges": [[V4], [V6]]},
        "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.5.0.9/24",
        args={"CNI": {"IPs": ["fd00::9"]}},
        runtimeConfig={"ips": ["10.5.0.9", "10.5.0.10/16"]},
    )
    assert [str(one) for one in found.wanted] == ["10.5.0.9", "fd00::9", "10.5.0.10"]


def test_routes_keep_what_the_result_knows() -> None:
    routes = [
        {"dst": "0.0.0.0/0"},
        {"DST": "10.0.0.5/8", "gw": "10.5.0.9", "mtu": 1400, "table": 0, "priority": 0},
    ]
    assert request({"ranges": [[V4]], "routes": routes}).routes == [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.0.0.5/8", "gw": "10.5.0.9", "mtu": 1400, "table": 0},
    ]


def test_exclude_of_the_object_reaches_every_range() -> None:
    found = (
        request({"ranges": [[{**V4, "exclude": ["10.5.0.7"]}]], "exclude": ["10.5.0.64/26"]})
        .range_sets[0]
        .ranges[0]
    )
    assert [str(one) for one in found.exclude] == ["10.5.0.64/26", "10.5.0.7/32"]


SET = "invalid range set 0: "
REFUSED = [
    (
        {"ranges": [[{"subnet": "10.5.0.0/30", "exclude": ["10.5.0.2"]}]]},
        SET + "10.5.0.1-10.5.0.2 has no address to give: gateway and exclude take them all",
    ),
    (
        {"ranges": [[{"subnet": "fd00::1/128", "gateway": "fd00::1"}]]},
        SET + "fd00::1-fd00::1 has no address to give: gateway and exclude take them all",
    ),
    (
        {"ranges": [[{"subnet": "10.5.0.1/24"}]]},
        SET + "Network has host bits set. For a subnet mask of length 24 "
        "the network address is 10.5.0.0",
    ),
    (
        {"ranges": [[{**V4, "rangeStart": "10.6.0.1"}]]},
        SET + "RangeStart 10.6.0.1 not in network 10.5.0.0/24",
    ),
    (
        {"ranges": [[{**V4, "rangeEnd": "10.6.0.1"}]]},
        SET + "RangeEnd 10.6.0.1 not in network 10.5.0.0/24",
    ),
    (
        {"ranges": [[{**V4, "rangeStart": "10.5.0.9", "rangeEnd": "10.5.0.8"}]]},
        SET + "RangeEnd 10.5.0.8 not in network 10.5.0.0/24 "
        "(RangeEnd 10.5.0.8 lies before RangeStart 10.5.0.9)",
    ),
    (
        {"ranges": [[{**V4, "gateway": "fd00::1"}]]},
        SET + "gateway fd00::1 is not of the family of 10.5.0.0/24",
    ),
    ({"ranges": [[]]}, SET + "empty range set"),
    ({"ranges": [[V4, V6]]}, SET + "mixed address families"),
    ({"ranges": [[V4, V4]]}, SET + "subnets 10.5.0.1-10.5.0.254 and 10.5.0.1-10.5.0.254 overlap"),
    ({"ranges": [[V4], [V4]]}, "range set 0 overlaps with 1"),
    ({"ranges": []}, "no IP ranges specified"),
    ({}, "no IP ranges specified"),
    ({"ranges": [[{"subnet": "10.5.0.0"}]]}, SET + "invalid CIDR address: 10.5.0.0"),
    ({"ranges": [[{}]]}, SET + "the range {} has no subnet"),
    ({"ranges": [[{**V4, "rangeStart": "x"}]]}, SET + "rangeStart: invalid IP address: x"),
    ({"ranges": [[{**V4, "rangeStart": 5}]]}, SET + "rangeStart 5 is not a string"),
    ({"ranges": [[{"subnet": 5}]]}, SET + "subnet 5 is not a string"),
    ({"ranges": [["10.5.0.0/24"]]}, SET + 'a range is an object, not "10.5.0.0/24"'),
    ({"ranges": "10.5.0.0/24"}, 'ipam.ranges "10.5.0.0/24" is not a list of lists of ranges'),
    ({"ranges": [V4]}, 'ipam.ranges [{"subnet":"10.5.0.0/24"}] is not a list of lists of ranges'),
    (
        {"ranges": [[V4]], "exclude": "10.5.0.9"},
        'ipam.exclude: exclude "10.5.0.9" is not a list of addresses or CIDRs',
    ),
    ({"ranges": [[V4]], "exclude": ["x"]}, "ipam.exclude: invalid IP address: x"),
    (
        {"ranges": [[V4]], "exclude": [9]},
        "ipam.exclude: exclude holds 9, which is neither an address nor a CIDR",
    ),
    ({"ranges": [[V4]], "routes": {}}, "ipam.routes {} is not a list"),
    ({"ranges": [[V4]], "routes": [5]}, "ipam.routes holds 5, which is not an object"),
    ({"ranges": [[V4]], "routes": [{"dst": "x"}]}, "ipam.routes: invalid CIDR address: x"),
    (
        {"ranges": [[V4]], "routes": [{"dst": "0.0.0.0/0", "mtu": "9"}]},
        'ipam.routes mtu "9" is not a whole number',
    ),
    ({"ranges": [[V4]], "dataDir": 5}, "ipam.dataDir 5 is not a string"),
    ({"ranges": [[V4]], "resolvConf": []}, "ipam.resolvConf [] is not a string"),
    ({"subnetFile": True}, "ipam.subnetFile true is not a string"),
    ({"lockTimeout": "5"}, 'ipam.lockTimeout "5" is not a number of seconds from 0 to 600'),
    ({"lockTimeout": -1}, "ipam.lockTimeout -1 is not a number of seconds from 0 to 600"),
    ([], "ipam [] is not an object"),
    (None, "IPAM config missing 'ipam' key"),
]


@pytest.mark.parametrize(("ipam", "msg"), REFUSED, ids=[case[1] for case in REFUSED])
def test_wrong_ipam(ipam: Any, msg: str) -> None:
    with pytest.raises(CNIError) as caught:
        request(ipam)
    assert (caught.value.code, caught.value.msg) == (7, msg)


REFUSED_AROUND = [
    ({"args": 5}, "args 5 is not an object"),
    ({"args": {"cni": {"ips": "10.5.0.9"}}}, 'args.cni.ips "10.5.0.9" is not a list of addresses'),
    (
        {"args": {"cni": {"ips": ["10.5.0.300"]}}},
        "args.cni.ips: cannot understand ip: invalid IP address: 10.5.0.300",
    ),
    ({"runtimeConfig": {"ips": [5]}}, "runtimeConfig.ips: cannot understand ip: 5 is not a string"),
    (
        {"runtimeConfig": {"ipRanges": 5}},
        "runtimeConfig.ipRanges 5 is not a list of lists of ranges",
    ),
    ({"name": "a/b"}, "invalid characters found in network name"),
    ({"name": 5}, "name 5 is not a string"),
]


@pytest.mark.parametrize(("net", "msg"), REFUSED_AROUND, ids=[case[1] for case in REFUSED_AROUND])
def test_wrong_conf_around_ipam(net: dict[str, Any], msg: str) -> None:
    with pytest.raises(CNIError) as caught:
        request({"ranges": [[V4]]}, **net)
    assert (caught.value.code, caught.value.msg) == (7, msg)


def test_wrong_cni_args() -> None:
    with pytest.raises(
        CNIError, match=r'value of pair "IP=10.5": invalid IP address: 10.5'
    ) as caught:
        request({"ranges": [[V4]]}, "IP=10.5")
    assert caught.value.code == 4


def test_old_versions_take_one_address_a_family() -> None:
    other = {"subnet": "10.6.0.0/24"}
    with pytest.raises(
        CNIError, match=r"CNI version 0.2.0 does not support more than 1 address per family"
    ):
        request({"ranges": [[V4], [other]]}, cniVersion="0.2.0")
    assert len(request({"ranges": [[V4], [V6]]}, cniVersion="0.2.0").range_sets) == 2
    assert len(request({"ranges": [[V4], [other]]}, cniVersion="0.3.0").range_sets) == 2

"""Which verb from which version, and one result in the shape of every version."""

from __future__ import annotations

from typing import Any

import pytest

from cni import cniargs, version
from cni.errors import CNIError
from cni.wire import dumps_pretty, loads

INTERNAL: dict[str, Any] = {
    "interfaces": [
        {"name": "cni0", "mac": "0a:58:0a:f4:01:01", "mtu": 1450},
        {"name": "veth1", "mac": "0a:58:0a:f4:01:03", "mtu": 1450},
        {"name": "eth0", "mac": "0a:58:0a:f4:01:02", "mtu": 1450, "sandbox": "/run/netns/a"},
    ],
    "ips": [
        {"address": "10.244.1.2/24", "gateway": "10.244.1.1", "interface": 2},
        {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 2},
        {"address": "10.244.1.3/24", "interface": 0},
    ],
    "routes": [
        {"dst": "10.244.0.0/16", "mtu": 1400},
        {"dst": "0.0.0.0/0", "gw": "10.244.1.1", "table": 0},
        {"dst": "::/0", "gw": "fd00::1"},
    ],
    "dns": {"search": ["s"], "nameservers": ["1.1.1.1"], "domain": "d", "options": ["o"]},
}

OLDEST = """{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.244.1.2/24",
        "gateway": "10.244.1.1",
        "routes": [
            {
                "dst": "10.244.0.0/16"
            },
            {
                "dst": "0.0.0.0/0",
                "gw": "10.244.1.1"
            }
        ]
    },
    "ip6": {
        "ip": "fd00::2/64",
        "gateway": "fd00::1",
        "routes": [
            {
                "dst": "::/0",
                "gw": "fd00::1"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "1.1.1.1"
        ],
        "domain": "d",
        "search": [
            "s"
        ],
        "options": [
            "o"
        ]
    }
}"""


def test_the_oldest_shape_letter_by_letter() -> None:
    assert dumps_pretty(version.convert(INTERNAL, "0.2.0")) == OLDEST
    assert version.convert(INTERNAL, "0.1.0") == {**loads(OLDEST), "cniVersion": "0.1.0"}


def test_the_middle_shape_and_its_order() -> None:
    out = version.convert(INTERNAL, "0.4.0")
    assert list(out) == ["cniVersion", "interfaces", "ips", "routes", "dns"]
    assert list(out["interfaces"][2]) == ["name", "mac", "sandbox"]
    assert list(out["ips"][0]) == ["version", "interface", "address", "gateway"]
    assert [ip["version"] for ip in out["ips"]] == ["4", "6", "4"]
    assert list(out["routes"][1]) == ["dst", "gw", "table"]
    assert list(out["dns"]) == ["nameservers", "domain", "search", "options"]


def test_the_newest_shape_is_alphabetic() -> None:
    out = version.convert(INTERNAL, "1.1.0")
    assert list(out) == ["cniVersion", "dns", "interfaces", "ips", "routes"]
    for part in ("interfaces", "ips", "routes"):
        for item in out[part]:
            assert list(item) == sorted(item)
    assert out["interfaces"] == INTERNAL["interfaces"]
    assert out["ips"] == INTERNAL["ips"]
    assert list(out["dns"]) == sorted(out["dns"])


@pytest.mark.parametrize("wanted", version.SUPPORTED)
def test_an_interface_index_of_zero_is_kept_and_empty_parts_are_not(wanted: str) -> None:
    out = version.convert(
        {"ips": [{"address": "10.0.0.2/24", "gateway": "", "interface": 0}]}, wanted
    )
    if wanted in ("0.1.0", "0.2.0"):
        assert out == {"cniVersion": wanted, "ip4": {"ip": "10.0.0.2/24"}, "dns": {}}
    elif wanted < "1":
        assert out["ips"] == [{"version": "4", "interface": 0, "address": "10.0.0.2/24"}]
        assert out["dns"] == {}
    else:
        ips = [{"address": "10.0.0.2/24", "interface": 0}]
        assert out == {"cniVersion": wanted, "ips": ips}


def test_routes_of_a_family_without_address_are_dropped_in_the_oldest_shape() -> None:
    out = version.convert(
        {"ips": [{"address": "fd00::2/64"}], "routes": [{"dst": "0.0.0.0/0"}]}, "0.2.0"
    )
    assert out == {"cniVersion": "0.2.0", "ip6": {"ip": "fd00::2/64"}, "dns": {}}


def test_the_oldest_shape_needs_an_address() -> None:
    with pytest.raises(CNIError, match="cannot convert: no valid IP addresses"):
        version.convert({"interfaces": [{"name": "eth0"}]}, "0.2.0")


def test_an_unknown_shape_has_no_converter() -> None:
    with pytest.raises(CNIError, match=r"no converter for CNI result version 1\.1\.0 to 9\.9\.9"):
        version.convert({}, "9.9.9")


def test_each_shape_is_read_back() -> None:
    assert version.decode(version.convert(INTERNAL, "1.1.0"), "1.0.0") == INTERNAL
    middle = version.decode(version.convert(INTERNAL, "0.3.1"), "0.4.0")
    assert [list(item) for item in middle["interfaces"]] == [["name", "mac"]] * 2 + [
        ["name", "mac", "sandbox"]
    ]
    assert middle["ips"] == INTERNAL["ips"]
    assert middle["routes"] == INTERNAL["routes"]
    oldest = version.decode(version.convert(INTERNAL, "0.1.0"), "0.2.0")
    assert oldest["ips"] == [
        {"address": "10.244.1.2/24", "gateway": "10.244.1.1"},
        {"address": "fd00::2/64", "gateway": "fd00::1"},
    ]
    assert [route["dst"] for route in oldest["routes"]] == ["10.244.0.0/16", "0.0.0.0/0", "::/0"]
    assert "interfaces" not in oldest


def test_a_foreign_result_becomes_canonical() -> None:
    foreign: dict[str, Any] = {
        "CNIVersion": "1.0.0",
        "IPs": [{"Address": "::ffff:10.0.0.2/120", "gateway": "", "Interface": 0, "x": 1}],
        "routes": [{"dst": "FD00::/8", "GW": "FE80::01"}],
        "dns": {},
        "interfaces": None,
    }
    assert version.decode(foreign, "1.1.0") == {
        "ips": [{"address": "10.0.0.2/24", "interface": 0}],
        "routes": [{"dst": "fd00::/8", "gw": "fe80::1"}],
    }


BAD_RESULTS: list[tuple[Any, str, str]] = [
    ({"cniVersion": "0.4.0"}, "1.1.0",
     'result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is "0.4.0"'),
    ({}, "7", 'unsupported CNI result version "7"'),
    ([], "1.0.0", "result must be an object, not []"),
    ({"ips": {}}, "1.0.0", "ips must be a list"),
    ({"ips": [1]}, "1.0.0", "ips must be an object, not 1"),
    ({"ips": [{}]}, "1.0.0", "ips.address: invalid CIDR address: "),
    ({"ips": [{"address": "10.0.0.1"}]}, "1.0.0", "invalid CIDR address: 10.0.0.1"),
    ({"ips": [{"address": 7}]}, "1.0.0", "ips.address must be a string, not 7"),
    ({"ips": [{"address": "10.0.0.1/8", "gateway": "z"}]}, "1.0.0", "invalid IP address: z"),
    ({"ips": [{"address": "10.0.0.1/8", "interface": True}]}, "1.0.0",
     "must be an integer, not true"),
    ({"interfaces": [{"name": 3}]}, "1.0.0", "interfaces.name must be a string"),
    ({"interfaces": [{"name": "a", "mtu": "1500"}]}, "1.1.0", "interfaces.mtu must be an integer"),
    ({"routes": [{"dst": "10.0.0.0/8", "table": "x"}]}, "1.1.0", "routes.table must be an integer"),
    ({"dns": []}, "0.4.0", "dns must be an object"),
    ({"dns": {"nameservers": "1.1.1.1"}}, "0.4.0", "dns.nameservers must be a list"),
    ({"ip4": []}, "0.2.0", "ip4 must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "shape", "words"), BAD_RESULTS, ids=[row[2] for row in BAD_RESULTS]
)
def test_a_bad_result_is_told(result: Any, shape: str, words: str) -> None:
    with pytest.raises(CNIError) as caught:
        version.decode(result, shape)
    assert words in caught.value.msg


def test_prev_result_is_read_by_the_confs_version() -> None:
    conf = {
        "cniVersion": "0.4.0",
        "prevResult": {"ips": [{"version": "4", "address": "10.0.0.2/24"}]},
    }
    assert version.prev_result(conf) == {"ips": [{"address": "10.0.0.2/24"}]}
    assert version.prev_result({}) is None
    with pytest.raises(CNIError, match="could not parse prevResult: result must be an object"):
        version.prev_result({"prevResult": "x"})


# verb, version of the conf, code and message as the reference implementation gives them
VERSIONS = [
    ("ADD", "9.9.9", 1, "incompatible CNI versions"),
    ("ADD", "x", 1, "incompatible CNI versions"),
    ("CHECK", "0.3.1", 1, "config version does not allow CHECK"),
    ("CHECK", "9.9.9", 1, "plugin version does not allow CHECK"),
    ("CHECK", "0.5.0", 1, "incompatible CNI versions"),
    ("CHECK", "1.0", 1, "incompatible CNI versions"),
    ("CHECK", "x", 6,
     'failed to convert major version part "x": strconv.Atoi: parsing "x": invalid syntax'),
    ("CHECK", "1.x", 6, 'failed to convert minor version part "x"'),
    ("CHECK", "1.0.-1", 6, 'failed to convert micro version part "-1"'),
    ("CHECK", "1.0.0.0", 6, 'invalid version "1.0.0.0": too many parts'),
    ("GC", "1.0.0", 1, "config version does not allow GC"),
    ("STATUS", "1.0.0", 1, "config version does not allow STATUS"),
    ("STATUS", "1.2.0", 1, "plugin version does not allow STATUS"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "wanted", "code", "words"), VERSIONS)
def test_a_wrong_version_is_refused_as_in_go(
    command: str, wanted: str, code: int, words: str
) -> None:
    with pytest.raises(CNIError) as caught:
        version.check(command, wanted)
    assert caught.value.code == code
    assert words in caught.value.msg


def test_the_details_list_what_is_supported() -> None:
    with pytest.raises(CNIError) as caught:
        version.check("ADD", "9.9.9")
    assert caught.value.details == (
        'config is "9.9.9", plugin supports '
        '["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
    )


def test_every_verb_works_from_its_version_on() -> None:
    for wanted in version.SUPPORTED:
        version.check("ADD", wanted)
        version.check("DEL", wanted)
    for wanted in ("0.4.0", "1.0.0", "1.1.0"):
        version.check("CHECK", wanted)
    version.check("GC", "1.1.0")
    version.check("STATUS", "1.1.0")


def test_no_version_means_the_oldest() -> None:
    assert version.of_conf({}) == version.of_conf({"cniVersion": ""}) == "0.1.0"
    with pytest.raises(CNIError, match="cniVersion must be a string, not 1") as caught:
        version.of_conf({"cniVersion": 1})
    assert caught.value.code == 6


ARGS: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("IP=10.0.0.2", {"IP": "10.0.0.2"}),
    ("IP=a;IP=b", {"IP": "b"}),
    ("IP=;MAC=x", {"IP": "", "MAC": "x"}),
    ("K8S_POD_NAME=p;IP=a;IgnoreUnknown=1", {"IP": "a"}),
    ("IgnoreUnknown=TRUE;ip=a", {}),
    ("IgnoreUnknown=0", {}),
]


@pytest.mark.parametrize(("text", "values"), ARGS)
def test_cni_args_are_read(text: str, values: dict[str, str]) -> None:
    assert cniargs.parse(text, ("IP", "MAC")) == values


BAD_ARGS = [
    ("IP=a;", 'ARGS: invalid pair ""'),
    ("IP", 'ARGS: invalid pair "IP"'),
    ("IP=a=b", 'ARGS: invalid pair "IP=a=b"'),
    ("X=1;y=2;IP=a", 'ARGS: unknown args ["X=1" "y=2"]'),
    ("X=1;IgnoreUnknown=false", 'ARGS: unknown args ["X=1"]'),
    ("IgnoreUnknown=7",
     ('ARGS: error parsing value of pair "IgnoreUnknown=7": '
     "boolean unmarshal error: invalid input 7")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD_ARGS)
def test_bad_cni_args_are_told_as_in_go(text: str, words: str) -> None:
    with pytest.raises(CNIError) as caught:
        cniargs.parse(text, ("IP", "MAC"))
    assert (caught.value.code, caught.value.msg) == (4, words)

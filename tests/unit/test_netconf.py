"""The configuration of `flannel`: defaults, spelling of keys, and what is wrong with a value."""

from __future__ import annotations

from typing import Any

import pytest

from cni.errors import INVALID_NETWORK_CONFIG, CNIError
from cni_flannel import netconf

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("name", {"name": 5}, '"name" must be a string, not 5'),
    ("version", {"cniVersion": 1}, '"cniVersion" must be a string, not 1'),
    ("subnet file", {"subnetFile": []}, '"subnetFile" must be a string, not []'),
    ("data dir", {"dataDir": {}}, '"dataDir" must be a string, not {}'),
    ("delegate list", {"delegate": ["a"]}, '"delegate" must be an object, not ["a"]'),
    ("delegate text", {"delegate": "bridge"}, '"delegate" must be an object, not "bridge"'),
    ("ipam", {"ipam": "host-local"}, '"ipam" must be an object, not "host-local"'),
    ("runtime config", {"runtimeConfig": 1}, '"runtimeConfig" must be an object, not 1'),
    ("args", {"args": True}, '"args" must be an object, not true'),
    ("dns", {"dns": []}, '"dns" must be an object, not []'),
    ("previous result", {"prevResult": "x"}, '"prevResult" must be an object, not "x"'),
    ("wait as text", {"subnetFileWait": "2"}, 'must be seconds from 0 to 60, not "2"'),
    ("wait as truth", {"subnetFileWait": True}, "must be seconds from 0 to 60, not true"),
    ("wait below 0", {"subnetFileWait": -1}, "must be seconds from 0 to 60, not -1"),
    ("wait too long", {"subnetFileWait": 61}, "must be seconds from 0 to 60, not 61"),
]


def named(cases: list[tuple[Any, ...]]) -> list[Any]:
    return [pytest.param(*case[1:], id=case[0]) for case in cases]


def test_the_defaults_are_those_of_the_go_plugin() -> None:
    conf = netconf.parse({"name": "cbr0", "type": "flannel"})
    assert (conf.name, conf.cni_version) == ("cbr0", "")
    assert conf.subnet_file == "/run/flannel/subnet.env"
    assert conf.data_dir == "/var/lib/cni/flannel"
    assert (conf.delegate, conf.ipam) == ({}, {})
    assert (conf.runtime_config, conf.args, conf.dns, conf.prev_result) == (None,) * 4
    assert conf.subnet_file_wait == 2.0


def test_keys_match_without_regard_to_case_and_the_last_one_wins() -> None:
    conf = netconf.parse({"SubnetFile": "/a", "subnetfile": "/b", "DATADIR": "/d"})
    assert (conf.subnet_file, conf.data_dir) == ("/b", "/d")


def test_the_maps_for_other_plugins_stay_as_they_are() -> None:
    delegate = {"Type": "x", "mtu": None, "own": [1]}
    ipam = {"TYPE": "y", "own": {}}
    conf = netconf.parse({"delegate": delegate, "ipam": ipam})
    assert (conf.delegate, conf.ipam) == (delegate, ipam)


def test_null_and_the_empty_path_are_absent() -> None:
    raw = dict.fromkeys(("subnetFile", "dataDir", "delegate", "ipam", "args", "subnetFileWait"))
    conf = netconf.parse({**raw, "dataDir": ""})
    assert (conf.subnet_file, conf.data_dir) == (netconf.SUBNET_FILE, netconf.DATA_DIR)
    assert (conf.delegate, conf.ipam, conf.args, conf.subnet_file_wait) == ({}, {}, None, 2.0)


@pytest.mark.parametrize("seconds", [0, 0.25, 60])
def test_the_wait_may_be_any_number_of_seconds_up_to_a_minute(seconds: float) -> None:
    assert netconf.parse({"subnetFileWait": seconds}).subnet_file_wait == seconds


@pytest.mark.parametrize(("raw", "message"), named(WRONG))
def test_a_wrong_value_is_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        netconf.parse(raw)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert caught.value.msg.startswith("parse configuration: ")
    assert message in caught.value.msg
    assert "/etc/cni/net.d" in caught.value.details


def test_a_long_value_is_shown_shortened() -> None:
    assert len(netconf.shown("x" * 1000)) == 80


def test_a_value_nested_too_deeply_to_be_written_is_described() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert "nested too deeply" in netconf.shown(deep)


@pytest.mark.parametrize("value", [True, "5", 1.5, [5]])
def test_a_whole_number_is_nothing_else(value: object) -> None:
    with pytest.raises(CNIError, match='"mtu" must be a whole number'):
        netconf.integer({"mtu": value}, "mtu")
    assert netconf.integer({"mtu": -5}, "mtu") == -5
    assert netconf.integer({}, "mtu") == 0

"""The configuration of `bridge`: Go's fields, defaults and wording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import INVALID_ENVIRONMENT, INVALID_NETWORK_CONFIG, CNIError
from cni_flannel.bridge import conf as bridge_conf
from tests.unit.fakes import args
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from cni_flannel.bridge.conf import BridgeConf


def parse(cni_args: str = "", /, **conf: Any) -> BridgeConf:
    return bridge_conf.parse(args({"name": "net", **conf}, cni_args=cni_args))


DEFAULTS = {
    "bridge": "cni0",
    "disable_container_interface": False,
    "dns": {},
    "enabledad": False,
    "force_address": False,
    "gateway_holder": "cni0",
    "hairpin_mode": False,
    "ip_masq": False,
    "ip_masq_backend": None,
    "ipam_type": "",
    "is_default_gateway": False,
    "is_gateway": False,
    "keep_accept_ra": False,
    "mac": "",
    "macspoofchk": False,
    "mtu": 0,
    "name": "net",
    "port_isolation": False,
    "preserve_default_vlan": False,
    "promisc_mode": False,
    "trunk": [],
    "uses_vlans": False,
    "vlan": 0,
}
SWITCHES = [
    ("isGateway", "is_gateway"),
    ("forceAddress", "force_address"),
    ("ipMasq", "ip_masq"),
    ("hairpinMode", "hairpin_mode"),
    ("promiscMode", "promisc_mode"),
    ("preserveDefaultVlan", "preserve_default_vlan"),
    ("macspoofchk", "macspoofchk"),
    ("enabledad", "enabledad"),
    ("disableContainerInterface", "disable_container_interface"),
    ("portIsolation", "port_isolation"),
    ("keepAcceptRA", "keep_accept_ra"),
]


def test_the_defaults_are_those_of_the_go_plugin() -> None:
    conf = parse()
    assert {name: getattr(conf, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(("key", "attribute"), SWITCHES)
def test_every_switch_is_read_in_any_case_and_is_nothing_but_a_truth_value(
    key: str, attribute: str
) -> None:
    for spelling in (key, key.lower(), key.upper()):
        conf = parse("", **{spelling: True})
        changed = {name for name, value in DEFAULTS.items() if getattr(conf, name) != value}
        assert changed == {attribute}
    with pytest.raises(CNIError, match=f'"{key}" must be true or false, not "true"'):
        parse("", **{key: "true"})


def test_a_default_gateway_is_a_gateway() -> None:
    conf = parse(isDefaultGateway=True)
    assert conf.is_gateway
    assert conf.is_default_gateway


def test_with_a_vlan_the_gateway_address_has_a_link_of_its_own() -> None:
    conf = parse(vlan=100)
    assert (conf.gateway_holder, conf.uses_vlans) == ("cni0.100", True)


def test_a_vlan_link_is_named_only_where_there_is_one() -> None:
    assert parse(bridge="b" * 15, vlan=100).bridge == "b" * 15
    with pytest.raises(CNIError, match="numerical result out of range"):
        parse(bridge="b" * 12, vlan=100, isGateway=True)


def test_unknown_keys_and_null_are_passed_over() -> None:
    conf = parse(bridge=None, mtu=None, ipam=None, whatever={"x": 1})
    assert (conf.bridge, conf.mtu, conf.ipam_type) == ("cni0", 0, "")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("mtu -1", {"mtu": -1}, "invalid MTU -1 (must be 0 or between 68 and 65535)"),
    ("mtu 67", {"mtu": 67}, "invalid MTU 67 (must be"),
    ("mtu 1e9", {"mtu": 10**9}, "invalid MTU 1000000000 (must be"),
    ("mtu text", {"mtu": "1500"}, '"mtu" must be a whole number, not "1500"'),
    ("mtu fraction", {"mtu": 1500.5}, '"mtu" must be a whole number, not 1500.5'),
    ("vlan 4095", {"vlan": 4095}, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
    ("vlan -1", {"vlan": -1}, "invalid VLAN ID -1 (must be between 0 and 4094)"),
    (
        "contradiction",
        {"hairpinMode": True, "promiscMode": True},
        "cannot set hairpin mode and promiscuous mode at the same time",
    ),
    (
        "ipam without interface",
        {"disableContainerInterface": True, "ipam": {"type": "host-local"}},
        "cannot use IPAM when DisableContainerInterface flag is set",
    ),
    ("backend", {"ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"'),
    ("long", {"bridge": "b" * 16}, f'could not add "{"b" * 16}": numerical result out of range'),
    ("long in bytes", {"bridge": "ü" * 8}, "numerical result out of range"),
    ("dots", {"bridge": ".."}, 'could not add "..": that is a folder'),
    ("slash", {"bridge": "a/b"}, "contains / or : or % or whitespace"),
    ("space", {"bridge": "a b"}, "contains / or : or % or whitespace"),
    ("template", {"bridge": "br%d"}, "contains / or : or % or whitespace"),
    ("pattern", {"bridge": "br%s"}, "contains / or : or % or whitespace"),
    ("of the kernel's", {"bridge": "all"}, 'could not add "all": the kernel'),
    ("of the kernel's too", {"bridge": "default"}, 'could not add "default": the kernel'),
    ("the kernel's blank", {"bridge": "brà"}, "a byte (a0 or 00)"),
    ("NUL", {"bridge": "br\0"}, '"bridge" must be without a NUL character'),
    ("bridge", {"bridge": 5}, '"bridge" must be a string, not 5'),
    ("ipam", {"ipam": []}, '"ipam" must be an object, not []'),
    ("ipam type", {"ipam": {"type": 5}}, '"type" must be a string, not 5'),
    ("dns", {"dns": "x"}, "dns must be an object"),
    ("dns.nameservers", {"dns": {"nameservers": "x"}}, "dns.nameservers must be a list"),
    ("dns.search", {"DNS": {"Search": [1]}}, "dns.search must be a string, not 1"),
    ("dns.domain", {"dns": {"domain": []}}, "dns.domain must be a string"),
    ("trunk", {"vlanTrunk": {}}, '"vlanTrunk" must be a list'),
    ("trunk entry", {"vlanTrunk": [5]}, "'vlanTrunk' must hold objects, not 5"),
    ("trunk min", {"vlanTrunk": [{"minID": 0, "maxID": 5}]}, "incorrect trunk minID parameter: 0"),
    ("trunk max", {"vlanTrunk": [{"minID": 1, "maxID": 4095}]}, "incorrect trunk maxID parameter"),
    ("trunk id", {"vlanTrunk": [{"id": 4095}]}, "incorrect trunk id parameter: 4095"),
    ("trunk id text", {"vlanTrunk": [{"id": "5"}]}, 'incorrect trunk id parameter: "5"'),
    ("trunk order", {"vlanTrunk": [{"minID": 9, "maxID": 5}]}, "minID is greater than maxID"),
    (
        "no maxID",
        {"vlanTrunk": [{"minID": 9}]},
        "minID and maxID should be configured simultaneously, maxID is missing",
    ),
    (
        "no minID",
        {"vlanTrunk": [{"maxID": 9}]},
        "minID and maxID should be configured simultaneously, minID is missing",
    ),
    ("mac", {"runtimeConfig": {"mac": "0a:58"}}, 'invalid MAC address "0a:58"'),
    ("mac digits", {"args": {"cni": {"mac": "0g:58:0a:00:00:01"}}}, "invalid MAC address"),
    ("group mac", {"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "is not a unicast address"),
    ("zero mac", {"runtimeConfig": {"mac": "00:00:00:00:00:00"}}, "is not a unicast address"),
    ("mac of a number", {"runtimeConfig": {"mac": 5}}, '"mac" must be a string, not 5'),
]


@pytest.mark.parametrize(("conf", "message"), named(WRONG))
def test_a_wrong_value_is_named(conf: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse(**conf)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert message in caught.value.msg
    assert caught.value.details


TRUNKS: list[tuple[str, list[dict[str, Any]], list[tuple[int, int]]]] = [
    ("none", [], []),
    ("one", [{"id": 5}], [(5, 5)]),
    ("range", [{"minID": 1, "maxID": 4094}], [(1, 4094)]),
    ("both in one entry", [{"minID": 3, "maxID": 4, "id": 9}], [(3, 4), (9, 9)]),
    ("any case", [{"MinID": 3, "MAXID": 3}, {"ID": 7}], [(3, 3), (7, 7)]),
    ("nothing in it", [{}], []),
]


@pytest.mark.parametrize(("entries", "expected"), named(TRUNKS))
def test_trunks(entries: list[dict[str, Any]], expected: list[tuple[int, int]]) -> None:
    assert parse(vlanTrunk=entries).trunk == expected


A, B, C = "0a:00:00:00:00:0a", "0a:00:00:00:00:0b", "0a:00:00:00:00:0c"
MACS: list[tuple[str, str, dict[str, Any], str]] = [
    ("none", "", {}, ""),
    ("CNI_ARGS", f"IgnoreUnknown=1;K8S_POD_NAME=x;MAC={A}", {}, A),
    ("args before CNI_ARGS", f"MAC={A}", {"args": {"cni": {"mac": B}}}, B),
    ("runtimeConfig first", "", {"args": {"cni": {"mac": B}}, "runtimeConfig": {"mac": C}}, C),
    ("as containerd spells it", "", {"runtimeConfig": {"Mac": C}}, C),
    ("capitals and dashes", "", {"runtimeConfig": {"mac": "0A-00-00-00-00-0C"}}, C),
]


@pytest.mark.parametrize(("cni_args", "conf", "mac"), named(MACS))
def test_whose_mac_counts(cni_args: str, conf: dict[str, Any], mac: str) -> None:
    assert parse(cni_args, **conf).mac == mac


def test_broken_cni_args_are_the_environments_error() -> None:
    with pytest.raises(CNIError) as caught:
        parse("MAC=1=2")
    assert caught.value.code == INVALID_ENVIRONMENT


REMOVABLE: list[tuple[str, dict[str, Any], tuple[str, str, bool]]] = [
    ("contradiction", {"hairpinMode": True, "promiscMode": True}, ("br1", "dhcp", False)),
    ("mtu", {"mtu": "1500"}, ("br1", "dhcp", False)),
    ("vlan", {"vlan": 4095}, ("br1", "dhcp", False)),
    ("bridge of a number", {"bridge": 5}, ("cni0", "dhcp", False)),
    ("bridge of nothing", {"bridge": ""}, ("cni0", "dhcp", False)),
    ("masquerading", {"ipMasq": True}, ("br1", "dhcp", True)),
    ("masquerading of a text", {"ipMasq": "no"}, ("br1", "dhcp", True)),
    ("MAC check", {"macspoofchk": True}, ("br1", "dhcp", True)),
    ("no MAC check", {"macspoofchk": False}, ("br1", "dhcp", False)),
    ("ipam of a text", {"ipam": "dhcp"}, ("br1", "host-local", False)),
    ("ipam of a number", {"ipam": 5}, ("br1", "host-local", False)),
    ("no ipam", {"ipam": None}, ("br1", "host-local", False)),
    ("ipam type of a number", {"ipam": {"type": 5}}, ("br1", "host-local", False)),
    ("other case", {"Bridge": "br2", "IPAM": {"Type": "x"}}, ("br2", "x", False)),
    ("MAC of a number", {"runtimeConfig": {"mac": 5}}, ("br1", "dhcp", False)),
]


@pytest.mark.parametrize(("wrong", "found"), named(REMOVABLE))
def test_removal_judges_nothing(wrong: dict[str, Any], found: tuple[str, str, bool]) -> None:
    conf = bridge_conf.RemovalConf(
        {"name": "net", "ipam": {"type": "dhcp"}, "bridge": "br1", **wrong}
    )
    assert conf.name == "net"
    assert (conf.bridge, conf.ipam_type, conf.wants_rules) == found

"""What flannel hands to its delegate, as the Go plugin renders it, and beyond."""

from __future__ import annotations

from typing import Any

import pytest

from cni import wire
from cni.errors import INVALID_NETWORK_CONFIG, CNIError
from cni_flannel import delegate, netconf
from ipam import subnet_env
from tests.unit.test_netconf import named

ENV = """\
FLANNEL_NETWORK=10.1.0.0/16
FLANNEL_SUBNET=10.1.17.1/24
FLANNEL_MTU=1472
FLANNEL_IPMASQ=true
"""
ENV6 = """\
FLANNEL_IPV6_NETWORK=fc00::/48
FLANNEL_IPV6_SUBNET=fc00:0:0:1::1/64
FLANNEL_MTU=1472
FLANNEL_IPMASQ=false
"""
DUAL = ENV + "".join(line for line in ENV6.splitlines(keepends=True) if "IPV6" in line)
SEVERAL = ENV.replace("10.1.0.0/16", "10.1.0.0/16,10.9.0.0/16")


def build(conf: dict[str, Any], env: str = ENV) -> dict[str, Any]:
    net_conf = netconf.parse({"name": "cni-flannel", "type": "flannel", **conf})
    return delegate.build(net_conf, subnet_env.parse(env, "subnet.env"))


GOLDEN: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "defaults, the text that Go's own tests expect",
        {},
        ENV,
        (
            '{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
            '"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},'
            '"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}'
        ),
    ),
    (
        "IPv6 only",
        {"cniVersion": "1.0.0"},
        ENV6,
        (
            '{"cniVersion":"1.0.0","ipMasq":true,"ipam":{"ranges":[[{"subnet":"fc00:0:0:1::/64"}]],'
            '"routes":[{"dst":"fc00::/48"}],"type":"host-local"},'
            '"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}'
        ),
    ),
    (
        "dual-stack, IPv4 first",
        {},
        DUAL,
        (
            '{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}],'
            '[{"subnet":"fc00:0:0:1::/64"}]],'
            '"routes":[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],"type":"host-local"},'
            '"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}'
        ),
    ),
    (
        "several networks, a route to each, after the user's own",
        {"ipam": {"routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/x", "custom": 1}},
        SEVERAL,
        (
            '{"ipMasq":false,"ipam":{"custom":1,"dataDir":"/x",'
            '"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"0.0.0.0/0"},'
            '{"dst":"10.1.0.0/16"},{"dst":"10.9.0.0/16"}],"type":"host-local"},'
            '"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}'
        ),
    ),
    (
        "another delegate is no gateway",
        {"delegate": {"type": "ipvlan", "master": "eth1"}},
        ENV,
        (
            '{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
            '"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},'
            '"master":"eth1","mtu":1472,"name":"cni-flannel","type":"ipvlan"}'
        ),
    ),
    (
        "what the user says of the delegate wins",
        {"delegate": {"mtu": 1400, "ipMasq": True, "isGateway": False, "hairpinMode": True}},
        ENV,
        (
            '{"hairpinMode":true,"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
            '"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},'
            '"isGateway":false,"mtu":1400,"name":"cni-flannel","type":"bridge"}'
        ),
    ),
]


@pytest.mark.parametrize(("conf", "env", "text"), named(GOLDEN))
def test_the_rendered_configuration(conf: dict[str, Any], env: str, text: str) -> None:
    assert wire.dumps(build(conf, env)) == text


def test_the_users_ranges_are_replaced_by_the_nodes() -> None:
    conf = build({"ipam": {"ranges": [[{"subnet": "192.168.0.0/24"}]]}})
    assert conf["ipam"]["ranges"] == [[{"subnet": "10.1.17.0/24"}]]


def test_runtime_config_args_and_dns_reach_the_delegate_and_prev_result_does_not() -> None:
    more = {
        "runtimeConfig": {"mac": "x"},
        "args": {"cni": {"ips": ["10.1.17.9"]}},
        "dns": {"domain": "d"},
    }
    conf = build({**more, "prevResult": {"ips": []}, "capabilities": {"mac": True}})
    assert {key: conf[key] for key in more} == more
    assert not {"prevResult", "capabilities"} & set(conf)


def test_the_delegates_own_dns_comes_before_flannels() -> None:
    conf = build({"dns": {"domain": "a"}, "delegate": {"dns": {"domain": "b"}}})
    assert conf["dns"] == {"domain": "b"}


LIMITS: list[tuple[str, dict[str, Any], str, list[Any]]] = [
    (
        "of one family",
        {"rangeStart": "10.1.17.9", "rangeEnd": "10.1.17.20", "gateway": "10.1.17.2"},
        ENV,
        [{"rangeStart": "10.1.17.9", "rangeEnd": "10.1.17.20", "gateway": "10.1.17.2"}],
    ),
    ("exclude as text", {"exclude": "10.1.17.9"}, ENV, [{"exclude": ["10.1.17.9"]}]),
    (
        "each to the range of its family",
        {"exclude": ["fc00:0:0:1::/80", "10.1.17.64/26"], "rangeStart": ["10.1.17.5"]},
        DUAL,
        [
            {"exclude": ["10.1.17.64/26"], "rangeStart": "10.1.17.5"},
            {"exclude": ["fc00:0:0:1::/80"]},
        ],
    ),
    ("null is absent", {"rangeStart": None}, ENV, [{}]),
]


@pytest.mark.parametrize(("limits", "env", "expected"), named(LIMITS))
def test_limits_narrow_the_nodes_range(
    limits: dict[str, Any], env: str, expected: list[dict[str, Any]]
) -> None:
    ipam = build({"ipam": limits}, env)["ipam"]
    found = [{k: v for k, v in one.items() if k != "subnet"} for (one,) in ipam["ranges"]]
    assert found == expected
    assert not set(limits) & set(ipam), "they moved"


def test_another_ipam_plugins_keys_are_its_own() -> None:
    own = {"type": "whereabouts", "subnet": "usePodCidr", "exclude": "x", "gateway": "y"}
    ipam = build({"ipam": own})["ipam"]
    assert {key: ipam[key] for key in own} == own
    assert ipam["ranges"] == [[{"subnet": "10.1.17.0/24"}]]


TYPE = "'delegate' dictionary, if present, must have (string) 'type' field"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("type is a number", {"delegate": {"type": 5}}, TYPE),
    ("type is null", {"delegate": {"type": None}}, TYPE),
    ("type is empty", {"delegate": {"type": ""}}, TYPE),
    (
        "name",
        {"delegate": {"name": "x"}},
        "'delegate' dictionary must not have 'name' field, it'll be set by flannel",
    ),
    (
        "ipam",
        {"delegate": {"ipam": {}}},
        "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel",
    ),
    ("subnet", {"ipam": {"subnet": "10.0.0.0/8"}}, "must not have 'subnet' field"),
    ("ipam type", {"ipam": {"type": 5}}, "'type' must be a string, not 5"),
    ("ipam type null", {"ipam": {"type": None}}, "'type' must be a string, not null"),
    ("routes", {"ipam": {"routes": "10.0.0.0/8"}}, "'routes' must be a list of objects"),
    ("a route", {"ipam": {"routes": ["10.0.0.0/8"]}}, "'routes' must be a list of objects"),
    ("limit of a number", {"ipam": {"rangeStart": 5}}, "'rangeStart' must be an address, not 5"),
    ("limit of a list", {"ipam": {"exclude": [["x"]]}}, "'exclude' must be an address"),
    ("no address", {"ipam": {"gateway": "10.1.17"}}, "'gateway': invalid IP address: 10.1.17"),
    ("other family", {"ipam": {"rangeEnd": "fc00::5"}}, "fc00::5 is of a family this node has not"),
]


@pytest.mark.parametrize(("conf", "message"), named(WRONG))
def test_what_flannel_refuses(conf: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        build(conf)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert message in caught.value.msg


def test_nothing_that_was_given_is_changed() -> None:
    conf = {
        "delegate": {"a": 1},
        "ipam": {"routes": [{"dst": "0.0.0.0/0"}], "exclude": "10.1.17.9"},
    }
    before = wire.dumps(conf)
    build(conf)
    assert wire.dumps(conf) == before


def test_a_delete_without_the_nodes_subnet_has_no_ranges() -> None:
    net_conf = netconf.parse(
        {"name": "n", "cniVersion": "1.0.0", "ipam": {"dataDir": "/d", "exclude": "10.0.0.1"}}
    )
    assert delegate.rebuild(net_conf) == {
        "name": "n",
        "cniVersion": "1.0.0",
        "type": "bridge",
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": "/d"},
    }


def test_a_stored_configuration_gets_what_the_call_says_anew() -> None:
    stored = {"name": "n", "type": "bridge", "cniVersion": "0.3.1", "runtimeConfig": {"old": 1}}
    net_conf = netconf.parse(
        {"cniVersion": "1.1.0", "prevResult": {"ips": []}, "runtimeConfig": {"new": 1}}
    )
    assert delegate.renew(stored, net_conf) == {
        "name": "n",
        "type": "bridge",
        "cniVersion": "1.1.0",
        "prevResult": {"ips": []},
        "runtimeConfig": {"new": 1},
    }
    assert delegate.renew(stored, netconf.parse({})) == stored
    assert stored["cniVersion"] == "0.3.1"


MTUS: list[tuple[str, dict[str, Any], str, str]] = [
    ("of the file", {}, DUAL.replace("1472", "1279"), "invalid MTU 1279: IPv6 needs at least 1280"),
    ("of the conf", {"mtu": 1000}, ENV6, "IPv6 needs at least 1280 (RFC 8200), and the node's"),
    ("too small for all", {}, ENV.replace("1472", "67"), "invalid MTU 67 (must be 0 or between 68"),
    ("too large", {"mtu": 65536}, ENV, "invalid MTU 65536"),
]


@pytest.mark.parametrize("kind", ["bridge", "macvlan"])
@pytest.mark.parametrize(("keys", "env", "words"), named(MTUS))
def test_an_mtu_that_no_pod_can_have(kind: str, keys: dict[str, Any], env: str, words: str) -> None:
    with pytest.raises(CNIError) as caught:
        build({"delegate": {"type": kind, **keys}}, env)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert words in caught.value.msg
    assert "FLANNEL_MTU" in caught.value.details


def test_ipv4_does_with_less() -> None:
    assert build({}, ENV.replace("1472", "1000"))["mtu"] == 1000


OWN: list[tuple[str, list[Any], list[Any]]] = [
    ("the same", [{"dst": "10.1.0.0/16"}], []),
    ("host bits", [{"dst": "10.1.9.9/16"}], []),
    ("a way of its own", [{"dst": "10.1.0.0/16", "gw": "10.1.17.9"}], []),
    ("any case", [{"Dst": "10.1.0.0/16"}], []),
    ("another length", [{"dst": "10.1.0.0/17"}], [{"dst": "10.1.0.0/16"}]),
    (
        "another table",
        [{"dst": "10.1.0.0/16", "table": 100}],
        [{"dst": "10.1.0.0/16"}],
    ),
    ("nonsense, which IPAM will name", [{"dst": 5}, {}], [{"dst": "10.1.0.0/16"}]),
]


@pytest.mark.parametrize(("routes", "more"), named(OWN))
def test_a_route_to_the_network_is_there_once(routes: list[Any], more: list[Any]) -> None:
    assert build({"ipam": {"routes": routes}})["ipam"]["routes"] == [*routes, *more]


TWICE: list[tuple[str, list[Any], int]] = [
    ("the same", [{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0"}], 1),
    ("host bits", [{"dst": "10.1.0.0/17"}, {"Dst": "10.1.9.9/17", "gw": None}], 1),
    ("an MTU beside", [{"dst": "::/0", "mtu": 1300}, {"dst": "::/0"}], 1),
    ("the main table by its number", [{"dst": "::/0", "table": 254}, {"dst": "::/0"}], 1),
    ("another gateway", [{"dst": "::/0"}, {"dst": "::/0", "gw": "fc00::1"}], 2),
    ("another priority", [{"dst": "::/0"}, {"dst": "::/0", "priority": 5}], 2),
    ("nonsense, which IPAM will name", [{"dst": []}, {"dst": {}}, {"dst": "x", "gw": []}], 3),
]


@pytest.mark.parametrize(("routes", "number"), named(TWICE))
def test_a_route_of_the_conf_is_there_once(routes: list[Any], number: int) -> None:
    to_network = [{"dst": "10.1.0.0/16"}]
    assert build({"ipam": {"routes": routes}})["ipam"]["routes"] == routes[:number] + to_network


def test_a_network_that_the_daemon_names_twice_has_one_route() -> None:
    env = ENV.replace("10.1.0.0/16", "10.1.0.0/16,10.1.0.0/16")
    assert build({}, env)["ipam"]["routes"] == [{"dst": "10.1.0.0/16"}]


CHECKED: list[tuple[str, Any, Any]] = [
    (
        "both families",
        [{"dst": "10.1.0.0/16"}, {"dst": "fc00::/48"}, {"dst": "::/0", "gw": "fc00::9"}],
        [
            {"dst": "10.1.0.0/16", "gw": "10.1.17.1"},
            {"dst": "fc00::/48", "gw": "fc00::1"},
            {"dst": "::/0", "gw": "fc00::9"},
        ],
    ),
    ("what is none", [5, {}, {"dst": 5}], [5, {}, {"dst": 5}]),
    ("no list", {"dst": "10.1.0.0/16"}, {"dst": "10.1.0.0/16"}),
]


@pytest.mark.parametrize(("routes", "expected"), named(CHECKED))
def test_a_foreign_check_is_told_the_gateways(routes: Any, expected: Any) -> None:
    ips = [
        {"address": "10.1.17.2/24", "gateway": "10.1.17.1"},
        {"address": "10.1.17.3/24", "gateway": "10.1.17.99"},
        {"address": "fc00::2/64", "gateway": "fc00::1"},
        {"address": "fc00::3/64"},
        "no object",
    ]
    told = delegate.with_gateways({"cniVersion": "1.0.0", "ips": ips, "routes": routes})
    assert told == {"cniVersion": "1.0.0", "ips": ips, "routes": expected}


@pytest.mark.parametrize("result", [None, [], {}, {"routes": [{"dst": "10.1.0.0/16"}]}])
def test_a_result_without_gateways_stays_as_it_is(result: Any) -> None:
    assert delegate.with_gateways(result) == result

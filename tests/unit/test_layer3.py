"""From IPAM's result to addresses, gateways and routes, as Go's bridge plugin does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import DELEGATE_FAILED, CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import layer3 as l3
from tests.unit.fakes import args
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from cni_flannel.bridge.layer3 import Layer3

V4 = {"address": "10.244.1.2/24", "gateway": "10.244.1.1"}
V6 = {"address": "fd00::2/64", "gateway": "fd00::1"}


def complete(ipam_result: dict[str, Any] | None, **conf: Any) -> Layer3:
    parsed = bridge_conf.parse(args({"name": "net", **conf}))
    return l3.complete(parsed, ipam_result)


def routes(layer3: Layer3) -> list[tuple[str, str]]:
    return [(str(route.dst), str(route.gw)) for route in layer3.container_routes]


Case = tuple[str, dict[str, bool], list[dict[str, Any]], list[str], list[str]]
GATEWAYS: list[Case] = [
    ("no gateway", {}, [V4], [], ["10.244.1.1"]),
    ("gateway of IPAM", {"isGateway": True}, [V4], ["10.244.1.1/24"], ["10.244.1.1"]),
    (
        "first of the network if IPAM names none",
        {"isGateway": True},
        [{"address": "10.244.1.9/28"}],
        ["10.244.1.1/28"],
        ["10.244.1.1"],
    ),
    ("none made up without isGateway", {}, [{"address": "10.244.1.9/28"}], [], [""]),
    (
        "one a family",
        {"isGateway": True},
        [V4, V6],
        ["10.244.1.1/24", "fd00::1/64"],
        ["10.244.1.1", "fd00::1"],
    ),
    (
        "shared by two addresses",
        {"isGateway": True},
        [V4, {**V4, "address": "10.244.1.3/24"}],
        ["10.244.1.1/24"],
        ["10.244.1.1", "10.244.1.1"],
    ),
]


@pytest.mark.parametrize(("conf", "ips", "gateways", "told"), named(GATEWAYS))
def test_gateways(
    conf: dict[str, bool], ips: list[dict[str, Any]], gateways: list[str], told: list[str]
) -> None:
    layer3 = complete({"ips": ips}, **conf)
    assert [str(gateway) for gateway in layer3.gateways] == gateways
    assert [ip.get("gateway", "") for ip in layer3.ips] == told


DEFAULT4, DEFAULT6 = {"dst": "0.0.0.0/0"}, {"dst": "::/0"}
VIA4, VIA6 = {**DEFAULT4, "gw": "10.244.1.1"}, {**DEFAULT6, "gw": "fd00::1"}
OTHER = {**DEFAULT4, "gw": "10.244.1.99"}
DEFAULTS: list[tuple[str, list[Any], list[Any], list[Any]]] = [
    ("added", [V4], [], [VIA4]),
    ("a family each", [V4, V6], [], [VIA4, VIA6]),
    ("once for two addresses", [V4, {**V4, "address": "10.244.1.3/24"}], [], [VIA4]),
    ("not beside one with a gateway", [V4], [OTHER], [OTHER]),
    ("for one without", [V4], [DEFAULT4], [VIA4]),
    (
        "for one in another spelling",
        [V4, V6],
        [{"dst": "10.1.2.3/0"}, {"dst": "0::5/0"}],
        [{"dst": "10.1.2.3/0", "gw": "10.244.1.1"}, {"dst": "0::5/0", "gw": "fd00::1"}],
    ),
    (
        "beside one of another table",
        [V4],
        [{**OTHER, "table": 100}],
        [{**OTHER, "table": 100}, VIA4],
    ),
    ("after IPAM's", [V4], [{"dst": "10.0.0.0/8"}], [{"dst": "10.0.0.0/8"}, VIA4]),
]


@pytest.mark.parametrize(("ips", "given", "expected"), named(DEFAULTS))
def test_default_routes(ips: list[Any], given: list[Any], expected: list[Any]) -> None:
    assert complete({"ips": ips, "routes": given}, isDefaultGateway=True).routes == expected


ROUTES: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("its own gateway", [V4], {"dst": "10.0.0.0/8", "gw": "10.244.1.9"}, "10.244.1.9"),
    ("the address's", [V4], {"dst": "10.0.0.0/8"}, "10.244.1.1"),
    ("of its family", [V4, V6], {"dst": "fd00::/8"}, "fd00::1"),
    ("on the link for lack of any", [{"address": "10.1.0.2/24"}], {"dst": "10.0.0.0/8"}, "None"),
]


@pytest.mark.parametrize(("ips", "route", "gw"), named(ROUTES))
def test_a_route_goes_by(ips: list[Any], route: dict[str, Any], gw: str) -> None:
    layer3 = complete({"ips": ips, "routes": [route]})
    assert routes(layer3) == [(route["dst"], gw)]
    assert layer3.routes == [route], "the result says what IPAM said"


def test_the_kernel_gets_routes_without_host_bits_and_with_their_numbers() -> None:
    numbers = {"mtu": 1400, "advmss": 1360, "priority": 5, "table": 100, "scope": 0}
    layer3 = complete({"ips": [V4], "routes": [{"dst": "10.1.2.3/8", **numbers, "odd": 1}]})
    (route,) = layer3.container_routes
    assert (str(route.dst), route.metrics) == ("10.0.0.0/8", numbers)


DNS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("IPAM's", {}, {"domain": "a"}, {"domain": "a"}),
    ("the conf's if it says anything", {"domain": "b"}, {"domain": "a"}, {"domain": "b"}),
    ("an empty one says nothing", {"nameservers": []}, {"domain": "a"}, {"domain": "a"}),
]


@pytest.mark.parametrize(("own", "ipam", "expected"), named(DNS))
def test_dns(own: dict[str, Any], ipam: dict[str, Any], expected: dict[str, Any]) -> None:
    assert complete({"ips": [V4], "dns": ipam}, dns=own).dns == expected


def test_without_ipam_there_are_no_addresses() -> None:
    layer3 = complete(None, isGateway=True)
    assert (layer3.addresses, layer3.gateways, layer3.routes, layer3.families) == ([], [], [], [])


def test_the_families_are_listed_once() -> None:
    assert complete({"ips": [V6, V4, {"address": "10.244.1.3/24"}]}).families == [4, 6]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no addresses", {"ips": []}, "IPAM plugin returned missing IP config"),
    ("nothing", {}, "IPAM plugin returned missing IP config"),
    ("no prefix length", {"ips": [{"address": "10.0.0.1"}]}, "invalid CIDR address: 10.0.0.1"),
    ("not a text", {"ips": [{"address": 5}]}, "an address that is none"),
    ("bad gateway", {"ips": [{**V4, "gateway": "x"}]}, "a gateway that is none"),
    ("bad route", {"ips": [V4], "routes": [{"dst": "x"}]}, "an address that is none"),
    ("route to nowhere", {"ips": [V4], "routes": [{}]}, "an address that is none"),
    ("bad route gw", {"ips": [V4], "routes": [{**DEFAULT4, "gw": "x"}]}, "a gateway that is none"),
]


@pytest.mark.parametrize(("ipam_result", "message"), named(BAD))
def test_a_bad_result_is_the_ipam_plugins_fault(ipam_result: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as caught:
        complete(ipam_result, isGateway=True)
    assert caught.value.code == DELEGATE_FAILED
    assert message in caught.value.msg


def test_ipams_result_is_not_changed() -> None:
    given: dict[str, Any] = {"ips": [{"address": "10.244.1.2/24"}], "routes": []}
    complete(given, isDefaultGateway=True)
    assert given == {"ips": [{"address": "10.244.1.2/24"}], "routes": []}

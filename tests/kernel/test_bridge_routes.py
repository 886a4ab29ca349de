"""Routes: each once, of a family that the pod has, with a way there; and CHECK agrees at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    call,
    check,
    delete,
    host_local,
    make_conf,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

GW, GW6 = "10.88.1.1", "fd00:88::1"


def attached(node: Node, conf: dict[str, Any], pod: int = 1, **options: Any) -> dict[str, Any]:
    """ADD that STATUS foresees and CHECK confirms; its result."""
    assert call(node, "STATUS", conf, pod).status == 0
    result = attach(node, conf, pod, **options)
    outcome = check(node, conf, result, pod, **options)
    assert outcome.status == 0, outcome
    return result


def refused(node: Node, conf: dict[str, Any], *words: str) -> None:
    """ADD and STATUS that name what is wrong, and leave nothing."""
    error, status = add(node, conf).error, call(node, "STATUS", conf).error
    assert (error["code"], status["code"]) == (7, 50)
    for word in words:
        assert word in error["msg"]
        assert word in status["msg"]
    assert traces(node) == []
    assert set(node.links("p1")) == {"lo"}


def ways(node: Node, dst: str, pod: int = 1) -> list[tuple[str | None, str, int]]:
    """Gateway, interface and metric of every route to a destination, in the kernel's order."""
    family = 6 if ":" in dst or dst == "default6" else 4
    found = node.routes(f"p{pod}", family=family)
    name = "default" if dst == "default6" else dst
    return [
        (route.get("gateway"), route["dev"], route.get("metric", 0))
        for route in found
        if route["dst"] == name
    ]


# ---------------------------------------------------------------------------------------- only once

TWICE: dict[str, list[dict[str, Any]]] = {
    "the same": [{"dst": "10.96.0.0/12"}, {"dst": "10.96.0.0/12"}],
    "with its gateway": [{"dst": "10.96.0.0/12"}, {"dst": "10.96.0.0/12", "gw": GW}],
    "host bits": [{"dst": "10.96.0.0/12"}, {"dst": "10.100.1.2/12"}],
    "mapped": [{"dst": "10.96.0.0/12"}, {"dst": "::ffff:10.96.0.0/108"}],
    "an MTU beside": [{"dst": "10.96.0.0/12"}, {"dst": "10.96.0.0/12", "mtu": 1300}],
}


@pytest.mark.parametrize("case", TWICE)
def test_a_route_given_twice(node: Node, case: str) -> None:
    result = attached(node, make_conf(ipam=host_local(SUBNET, routes=TWICE[case])))
    assert result["routes"] == [{"dst": "10.96.0.0/12"}]
    assert ways(node, "10.96.0.0/12") == [(GW, "eth0", 0)]


def test_an_ipv6_route_given_twice(node: Node) -> None:
    routes = [{"dst": "fd99::/64"}, {"dst": "fd99::1/64", "gw": GW6}]
    attached(node, make_conf(ipam=host_local(SUBNET6, routes=routes)))
    assert ways(node, "fd99::/64") == [(GW6, "eth0", 1024)]


@pytest.mark.parametrize("dst", ["0.0.0.0/0", "10.1.2.3/0", "::ffff:0.0.0.0/96"])
def test_a_default_route_of_the_conf_beside_is_default_gateway(node: Node, dst: str) -> None:
    conf = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET, routes=[{"dst": dst}]))
    (route,) = attached(node, conf)["routes"]
    assert route["gw"] == GW
    assert ways(node, "default") == [(GW, "eth0", 0)]


def test_a_route_of_a_family_that_the_pod_has_not(node: Node) -> None:
    routes = [{"dst": "::/0"}, {"dst": "fd99::/64", "gw": "fd00::1"}, {"dst": "10.96.0.0/12"}]
    result = attached(node, make_conf(ipam=host_local(SUBNET, routes=routes)))
    assert result["routes"] == [{"dst": "10.96.0.0/12"}]


# ----------------------------------------------------------------------------------------- in a row


def test_two_gateways_to_one_destination(node: Node) -> None:
    """The first is used, in both families; the kernel would split the flows of IPv6."""
    routes = [
        {"dst": dst, "gw": gw}
        for dst, gws in (
            ("10.96.0.0/12", ("10.88.1.8", "10.88.1.9")),
            ("fd99::/64", ("fd00:88::8", "fd00:88::9", "fe80::9")),
        )
        for gw in gws
    ]
    attached(node, make_conf(ipam=host_local(SUBNET, SUBNET6, routes=routes)))
    assert [gw for gw, _, _ in ways(node, "10.96.0.0/12")] == ["10.88.1.8", "10.88.1.9"]
    assert ways(node, "fd99::/64") == [
        ("fd00:88::8", "eth0", 1024),
        ("fd00:88::9", "eth0", 1025),
        ("fe80::9", "eth0", 1026),
    ]


def test_two_interfaces_with_a_default_route(node: Node) -> None:
    first = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET, SUBNET6))
    second = make_conf(
        name="second",
        bridge="cni1",
        isDefaultGateway=True,
        ipam=host_local("10.89.0.0/24", "fd00:89::/64"),
    )
    one = attached(node, first)
    two = attached(node, second, ifname="net1")
    assert check(node, first, one).status == 0
    assert [dev for _, dev, _ in ways(node, "default")] == ["eth0", "net1"]
    assert [(dev, metric) for _, dev, metric in ways(node, "default6")] == [
        ("eth0", 1024),
        ("net1", 1025),
    ]
    assert check(node, second, two, ifname="net1").status == 0


def test_a_way_of_several_that_somebody_else_has_made(node: Node) -> None:
    conf = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET6))
    result = attach(node, conf)
    other = ["-n", "p1", "-6", "route", "append", "default", "via", "fd00:88::9", "dev", "eth0"]
    node.run(["ip", *other])
    assert check(node, conf, result).status == 0
    gone = ["-n", "p1", "-6", "route", "del", "default", "via", GW6, "dev", "eth0"]
    node.run(["ip", *gone])
    assert f"route to ::/0 via {GW6} is missing" in check(node, conf, result).error["msg"]


# --------------------------------------------------------------------------------- gateways outside


def reach(node: Node, address: str, gateway: str) -> None:
    """Host and pod reach each other, and the pod its gateway."""
    node.run(["ping", "-c1", "-W5", address])
    target = f"{gateway}%eth0" if gateway.startswith("fe80") else gateway
    node.pod_run("p1", ["ping", "-c1", "-W5", target])


@pytest.mark.parametrize(
    ("subnet", "gateway", "holds"),
    [
        ("10.88.1.0/24", "10.99.0.1", "10.99.0.1/32"),
        ("10.88.1.0/24", "169.254.1.1", "169.254.1.1/32"),
        ("10.88.1.7/32", "169.254.1.1", "169.254.1.1/32"),
        ("10.88.1.7/32", None, "169.254.1.1/32"),
        ("10.88.1.6/31", None, "10.88.1.7/31"),
        ("10.88.1.6/31", "10.88.1.6", "10.88.1.6/31"),
        ("fd00:88::/64", "fe80::1", None),
        ("fd00:88::/64", "fd00:99::1", "fd00:99::1/128"),
        ("fd00:88::7/128", "fe80::1", None),
        ("fd00:88::7/128", None, None),
        ("fd00:88::6/127", None, "fd00:88::7/127"),
    ],
)
def test_a_gateway_wherever_it_is(
    node: Node, subnet: str, gateway: str | None, holds: str | None
) -> None:
    one = {"subnet": subnet, **({"gateway": gateway} if gateway else {})}
    conf = make_conf(isDefaultGateway=True, ipam={"type": "host-local", "ranges": [[one]]})
    result = attached(node, conf)
    (ip,) = result["ips"]
    assert node.addresses()["cni0"] == ([holds] if holds else [])
    reach(node, ip["address"].split("/")[0], ip["gateway"])
    routes = host_routes(node)
    delete(node, conf)
    assert host_routes(node) == [route for route in routes if "/" in route]
    attached(node, conf, 2)


def host_routes(node: Node) -> list[str]:
    """Destinations on the bridge that no address of it brings."""
    found = [*node.routes(), *node.routes(family=6)]
    return [one["dst"] for one in found if one["dev"] == "cni0" and one["protocol"] != "kernel"]


def test_two_pods_behind_one_gateway_outside(node: Node) -> None:
    one = {"subnet": "10.88.1.0/24", "gateway": "169.254.1.1"}
    conf = make_conf(isDefaultGateway=True, ipam={"type": "host-local", "ranges": [[one]]})
    results = [attached(node, conf, pod) for pod in (1, 2)]
    (first, second) = (one["ips"][0]["address"].split("/")[0] for one in results)
    node.pod_run("p1", ["ping", "-c1", "-W5", second])
    assert sorted(host_routes(node)) == [first, second]
    delete(node, conf, 1)
    assert host_routes(node) == [second]
    node.run(["ping", "-c1", "-W5", second])


def test_a_router_on_the_link_that_is_in_no_subnet(node: Node) -> None:
    """At layer 2: the pod asks for it on the link, whoever it is."""
    routes = [
        {"dst": "0.0.0.0/0", "gw": "192.168.9.1"},
        {"dst": "10.96.0.0/12", "gw": "192.168.9.1"},
    ]
    conf = make_conf(isGateway=None, ipam=host_local(SUBNET, routes=routes))
    assert attached(node, conf)["routes"] == routes
    assert ways(node, "192.168.9.1") == [(None, "eth0", 0)]


@pytest.mark.parametrize(("subnet", "gateway"), [(SUBNET, "169.254.1.1"), (SUBNET6, "2001:db8::1")])
def test_two_interfaces_whose_gateway_is_in_no_subnet(
    node: Node, subnet: str, gateway: str
) -> None:
    """The way to it is there already, by the other interface, when the second one gets its own."""
    ranges = [[{"subnet": subnet, "gateway": gateway}]]
    ipam = {"type": "host-local", "ranges": ranges}
    node.add_pod("p1")
    for n in (0, 1):
        conf = make_conf(name=f"net{n}", bridge=f"br{n}", isDefaultGateway=True, ipam=ipam)
        attached(node, conf, ifname=f"eth{n}")
    assert [way[:2] for way in ways(node, gateway)] == [(None, "eth0"), (None, "eth1")]
    default = "default6" if ":" in gateway else "default"
    assert [way[:2] for way in ways(node, default)] == [(gateway, "eth0"), (gateway, "eth1")]


def test_a_route_with_the_last_priority_of_all_has_none_after_it(node: Node) -> None:
    last = {"dst": "2001:db8::/32", "priority": 2**32 - 1}
    routes = [{**last, "gw": gateway} for gateway in ("fd00:88::1", "fd00:88::7")]
    error = add(node, make_conf(ipam=host_local(SUBNET6, routes=routes))).error
    assert error["code"] == 101
    assert "2001:db8::/32 via fd00:88::7 priority 4294967295 dev eth0: file exists" in error["msg"]
    assert traces(node) == []


def test_routes_that_lead_to_the_gateway_themselves(node: Node) -> None:
    routes = [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "169.254.1.1/32", "scope": 253}]
    conf = make_conf(isGateway=None, ipam=host_local(SUBNET, routes=routes))
    attached(node, conf)
    assert ways(node, "169.254.1.1") == [(None, "eth0", 0)]
    assert ways(node, "default") == [("169.254.1.1", "eth0", 0)]


# --------------------------------------------------------------------------- gateways that are none

NO_GATEWAY: dict[str, tuple[dict[str, Any], str]] = {
    "all hosts": ({"gateway": "255.255.255.255"}, "255.255.255.255, which is the broadcast"),
    "all of the subnet": ({"gateway": "10.88.1.255"}, "the broadcast address of 10.88.1.0/24"),
    "many": ({"gateway": "224.0.0.1"}, "gateway 224.0.0.1, which is a multicast address"),
    "oneself": ({"gateway": "127.0.0.1"}, "gateway 127.0.0.1, which is the loopback's"),
    "no address": ({"gateway": "0" + ".0" * 3}, "gateway 0.0.0.0, which is no address"),
    "no address of IPv6": ({"subnet": SUBNET6, "gateway": "::"}, "gateway ::, which is no address"),
    "many of IPv6": ({"subnet": SUBNET6, "gateway": "ff02::1"}, "ff02::1, which is a multicast"),
}


@pytest.mark.parametrize("case", NO_GATEWAY)
def test_a_gateway_that_nobody_can_be(node: Node, case: str) -> None:
    keys, words = NO_GATEWAY[case]
    ranges = [[{"subnet": SUBNET, **keys}]]
    refused(node, make_conf(ipam={"type": "host-local", "ranges": ranges}), words)


NO_ROUTE: dict[str, tuple[dict[str, Any], str]] = {
    "behind another": (
        {"dst": "10.9.0.0/16", "gw": "192.168.9.1"},
        "gateway 192.168.9.1, which lies behind another one (192.168.0.0/16 via 10.88.1.1)",
    ),
    "elsewhere": (
        {"dst": "10.9.0.0/16", "gw": "172.20.0.1"},
        "gateway 172.20.0.1, which is in no subnet of the pod and not on the bridge",
    ),
    "broadcast": (
        {"dst": "10.9.0.0/16", "gw": "10.88.1.255"},
        "10.88.1.255, which is the",
    ),
    "multicast": ({"dst": "10.9.0.0/16", "gw": "224.0.0.1"}, "which is a multicast address"),
    "nobody": ({"dst": "10.9.0.0/16", "gw": "255.255.255.255"}, "which is the broadcast address"),
    "of the other family": ({"dst": "10.9.0.0/16", "gw": "fd00::1"}, "gateway fd00::1 for an IPv4"),
    "on the link and beyond": (
        {"dst": "10.9.0.0/16", "gw": GW, "scope": 253},
        "a route to 10.9.0.0/16 with gateway 10.88.1.1 and scope 253",
    ),
    "no scope": ({"dst": "10.9.0.0/16", "scope": 255}, "a route with scope 255"),
    "a table too large": ({"dst": "10.9.0.0/16", "table": 2**32}, "a route with table 4294967296"),
}


@pytest.mark.parametrize("case", NO_ROUTE)
def test_a_route_that_cannot_be(node: Node, case: str) -> None:
    route, words = NO_ROUTE[case]
    routes = [{"dst": "192.168.0.0/16"}, route]
    refused(node, make_conf(ipam=host_local(SUBNET, routes=routes)), words)


def test_the_pod_s_own_address_is_no_gateway(node: Node) -> None:
    ipam = {
        "type": "static",
        "addresses": [{"address": "10.88.1.9/24", "gateway": "10.88.1.9"}],
    }
    error = add(node, make_conf(cniVersion="1.0.0", ipam=ipam)).error
    assert error["code"] == 105
    assert "gateway 10.88.1.9, which is the pod's own address" in error["msg"]
    assert traces(node) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0.0.0.0/24", "which is no address"),
        ("127.0.0.5/8", "which is the loopback's"),
        ("224.0.0.5/24", "which is a multicast address"),
        ("255.255.255.255/32", "which is the broadcast address"),
        ("::/64", "which is no address"),
        ("::1/128", "which is the loopback's"),
        ("ff02::5/64", "which is a multicast address"),
    ],
)
def test_an_address_that_no_pod_can_have(node: Node, address: str, words: str) -> None:
    ipam = {"type": "static", "addresses": [{"address": address}]}
    error = add(node, make_conf(cniVersion="1.0.0", isGateway=None, ipam=ipam)).error
    assert error["code"] == 105
    assert f"address {address.split('/', maxsplit=1)[0]}, {words}" in error["msg"]
    assert traces(node) == []

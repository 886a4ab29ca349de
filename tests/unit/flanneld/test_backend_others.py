"""host-gw and alloc, and the choice of a backend."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from flanneld.backend.registry import backend_for
from flanneld.config import ConfigError
from flanneld.desired import Desired, Route
from flanneld.subnet import keys
from tests.unit.flanneld.cluster import IDENTITY, conf, external, lease

NETWORKS = frozenset({ip_network("10.244.0.0/16")})


@pytest.mark.parametrize("kind", ["host-gw", "vxlan"])
def test_host_gw_routes_by_way_of_the_peer(kind: str) -> None:
    made = backend_for(conf("host-gw", families="46"))
    planned = made.plan(
        lease(1, "host-gw", families="46"), [lease(2, kind, families="46")], external(), IDENTITY
    )
    assert planned == Desired(
        routes=frozenset(
            {
                Route("eth0", ip_network("10.244.2.0/24"), ip_address("192.168.9.2")),
                Route("eth0", ip_network("fd44:0:0:2::/64"), ip_address("fd09::2")),
            }
        ),
        networks=NETWORKS | {ip_network("fd44::/48")},
        keeps_devices=kind == "vxlan",
    )


def test_host_gw_names_a_peer_behind_a_router() -> None:
    far = lease(2, "host-gw", public_ip=IPv4Address("172.16.0.2"))
    planned = backend_for(conf("host-gw")).plan(
        lease(1, "host-gw"), [far, lease(3, "host-gw"), lease(4, "")], external(), IDENTITY
    )
    assert {route.destination for route in planned.routes} == {ip_network("10.244.3.0/24")}
    off_link, typeless = planned.problems
    assert off_link.startswith("10.244.2.0/24 of 172.16.0.2: it cannot be the gateway")
    assert typeless.startswith("10.244.4.0/24 of 192.168.9.4: it publishes no backend type")


def test_host_gw_publishes_as_go() -> None:
    told = backend_for(conf("host-gw")).attributes(external(families="4"), IDENTITY)
    assert keys.value(told) == (
        b'{"PublicIP":"192.168.9.1","PublicIPv6":null,"BackendType":"host-gw"}'
    )


def test_host_gw_refuses_nat_in_gos_words() -> None:
    behind = external(families="4", public_ip=IPv4Address("203.0.113.1"))
    with pytest.raises(ConfigError, match="your PublicIP differs from interface IP, meaning that"):
        backend_for(conf("host-gw")).attributes(behind, IDENTITY)


def test_alloc_plans_nothing_and_publishes_no_type() -> None:
    made = backend_for(conf("alloc"))
    assert made.plan(lease(1, ""), [lease(2)], external(), IDENTITY) == Desired(networks=NETWORKS)
    told = made.attributes(external(families="4"), IDENTITY)
    assert keys.value(told) == b'{"PublicIP":"192.168.9.1","PublicIPv6":null}'


@pytest.mark.parametrize("kind", ["host-gw", "alloc"])
def test_without_a_tunnel_the_mtu_is_the_interfaces(kind: str) -> None:
    assert backend_for(conf(kind)).mtu(external(mtu=9001)) == 9001


@pytest.mark.parametrize("spelled", ["vxlan", "VXLAN", "VxLan"])
def test_types_in_any_case(spelled: str) -> None:
    assert backend_for(conf(spelled)).name == "vxlan"


def test_unknown_type() -> None:
    with pytest.raises(ConfigError, match="unknown backend type: ipip"):
        backend_for(conf("ipip"))

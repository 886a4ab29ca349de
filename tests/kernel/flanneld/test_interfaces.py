"""What is read of the underlay, held against ip(8)."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

from flanneld.kernel import interfaces
from flanneld.links import IFA_F_DEPRECATED, IFA_F_TEMPORARY
from tests.kernel.privatens import needs_root, private, sh

pytestmark = needs_root


def ip(command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sh(f"ip -j {command}"))
    return found


def two_uplinks() -> None:
    sh("""
        ip link add one type bridge
        ip link add two mtu 1400 type bridge
        ip address add 192.0.2.1/24 dev one
        ip address add 192.0.2.11/24 dev one
        ip address add 2001:db8:1::1/64 dev one nodad
        ip address add 2001:db8:1::99/64 dev one nodad preferred_lft 0
        ip address add 198.51.100.2/24 dev two
        ip address add 2001:db8:2::2/64 dev two nodad
        ip link set one up
        ip link set two up
        ip route add default via 192.0.2.254 metric 200
        ip route add default via 198.51.100.254 metric 100
        ip route add default via 203.0.113.1 dev one onlink table 7
        ip -6 route add default via 2001:db8:1::fe metric 100
        ip route add 203.0.113.0/24 via 192.0.2.253 src 192.0.2.11
        ip route add blackhole 203.0.114.0/24
    """)


@private
def test_interfaces_and_addresses() -> None:
    two_uplinks()
    found = {
        one.name: (one.index, one.mtu, sorted(str(entry.address) for entry in one.addresses))
        for one in interfaces.read().interfaces
    }
    assert found == {
        link["ifname"]: (
            link["ifindex"],
            link["mtu"],
            sorted(address["local"] for address in link["addr_info"]),
        )
        for link in ip("address show")
    }
    indexes = [one.index for one in interfaces.read().interfaces]
    assert indexes == sorted(indexes)


@private
def test_flags_of_addresses() -> None:
    two_uplinks()
    one = next(one for one in interfaces.read().interfaces if one.name == "one")
    flags = {str(entry.address): entry.flags for entry in one.addresses}
    assert flags["2001:db8:1::99"] & IFA_F_DEPRECATED
    assert not flags["2001:db8:1::1"] & (IFA_F_DEPRECATED | IFA_F_TEMPORARY)
    best = [str(address) for address in one.best(6)]
    assert best[0] == "2001:db8:1::1"
    assert "2001:db8:1::99" not in best


@private
def test_the_default_route_with_the_least_metric() -> None:
    two_uplinks()
    names = {link["ifindex"]: link["ifname"] for link in ip("link show")}
    found = interfaces.read().defaults
    assert {version: names[found[version][0]] for version in found} == {4: "two", 6: "one"}


@private
def test_no_default_route() -> None:
    assert interfaces.read().defaults == {4: (), 6: ()}


@private
def test_the_route_to_an_address() -> None:
    two_uplinks()
    names = {link["ifindex"]: link["ifname"] for link in ip("link show")}
    for address in ("203.0.113.9", "192.0.2.77", "8.8.8.8", "2001:db8:2::77", "2001:db8:ff::1"):
        reach = interfaces.read(ip_address(address)).reach
        (wanted,) = ip(f"route get {address}")
        assert reach is not None
        assert (names[reach[0]], str(reach[1])) == (wanted["dev"], wanted["prefsrc"])
    assert interfaces.read(ip_address("203.0.114.1")).reach is None

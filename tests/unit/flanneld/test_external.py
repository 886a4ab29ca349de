"""Which interface reaches the others: each way to name it, their order, what if none fits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from flanneld import options
from flanneld.config import parse
from flanneld.external import (
    IFA_F_DEPRECATED,
    IFA_F_PERMANENT,
    IFA_F_TEMPORARY,
    ExternalError,
    Interface,
    InterfaceAddress,
    Underlay,
    choose,
)

V4 = parse('{"Network":"10.244.0.0/16"}')
V6 = parse('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}')
BOTH = parse('{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}')


def interface(index: int, name: str, *addresses: str, mtu: int = 1500) -> Interface:
    return Interface(
        index, name, mtu, tuple(InterfaceAddress(ip_address(text)) for text in addresses)
    )


ETH0 = interface(2, "eth0", "10.0.2.15", "fe80::2", "2001:db8:2::2")
ETH1 = interface(3, "eth1", "192.0.2.3", "192.0.2.33", "2001:db8:3::3", mtu=9000)
UNDERLAY = Underlay((interface(1, "lo", "127.0.0.1", "::1"), ETH0, ETH1), {4: 2, 6: 2})


def chosen(*argv: str, conf: object = V4, underlay: Underlay = UNDERLAY) -> tuple[str, ...]:
    found = choose(options.read(argv, {}), conf, underlay)  # type: ignore[arg-type]
    values = (found.address, found.public_ip, found.address6, found.public_ip6)
    return (found.name, *(str(value) for value in values if value is not None))


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], ("eth0", "10.0.2.15", "10.0.2.15")),
        (["--iface=eth1"], ("eth1", "192.0.2.3", "192.0.2.3")),
        (["--iface=192.0.2.33"], ("eth1", "192.0.2.33", "192.0.2.33")),
        (["--iface=eth9", "--iface=eth1"], ("eth1", "192.0.2.3", "192.0.2.3")),
        (["--iface-regex=eth."], ("eth0", "10.0.2.15", "10.0.2.15")),
        (["--iface-regex=^192"], ("eth1", "192.0.2.3", "192.0.2.3")),
        (["--iface-regex=33$"], ("eth1", "192.0.2.33", "192.0.2.33")),
        (["--iface-regex=^eth1", "--iface=eth0"], ("eth0", "10.0.2.15", "10.0.2.15")),
        (["--iface=eth9", "--iface-regex=h1"], ("eth1", "192.0.2.3", "192.0.2.3")),
        (["--public-ip=192.0.2.33"], ("eth1", "192.0.2.33", "192.0.2.33")),
        (["--iface=eth1", "--public-ip=203.0.113.7"], ("eth1", "192.0.2.3", "203.0.113.7")),
    ],
)
def test_ways_to_name_it(argv: list[str], wanted: tuple[str, ...]) -> None:
    assert chosen(*argv) == wanted


def test_reach() -> None:
    underlay = replace(UNDERLAY, reach=(3, ip_address("192.0.2.33")))
    assert chosen("--iface-can-reach=203.0.113.9", underlay=underlay)[:2] == ("eth1", "192.0.2.33")


def test_ipv6_and_both() -> None:
    assert chosen(conf=V6) == ("eth0", "2001:db8:2::2", "2001:db8:2::2")
    assert chosen("--iface=eth1", conf=BOTH) == (
        *("eth1", "192.0.2.3", "192.0.2.3"),
        *("2001:db8:3::3", "2001:db8:3::3"),
    )


@pytest.mark.parametrize(
    ("argv", "conf", "words"),
    [
        (["--iface=eth9"], V4, "eth9: there is none.*eth0:"),
        (["--iface=192.0.2.9"], V4, "192.0.2.9: no interface has this address"),
        (["--public-ip=203.0.113.7"], V4, "behind NAT name the interface with --iface"),
        (["--iface-regex=wlan"], V4, "could not match pattern wlan"),
        (["--iface-can-reach=203.0.113.9"], V4, "no route to 203.0.113.9"),
        (["--iface=eth9", "--iface-regex=wlan"], V4, "eth9.*wlan"),
    ],
)
def test_every_failure_is_told(argv: list[str], conf: object, words: str) -> None:
    with pytest.raises(ExternalError, match=words):
        chosen(*argv, conf=conf)


def test_without_a_default_route() -> None:
    with pytest.raises(ExternalError, match="no default route of IPv4; name the interface"):
        chosen(underlay=replace(UNDERLAY, defaults={4: 0, 6: 2}))


def test_default_routes_of_two_interfaces() -> None:
    with pytest.raises(ExternalError, match="v6 default route interface eth1 must be the same"):
        chosen(conf=BOTH, underlay=replace(UNDERLAY, defaults={4: 2, 6: 3}))


@pytest.mark.parametrize(
    ("bare", "words"),
    [
        (interface(2, "eth0", "fe80::2"), "failed to find IPv4 address for eth0"),
        (interface(2, "eth0", "10.0.2.15", mtu=0), "failed to determine MTU for eth0"),
    ],
)
def test_an_interface_that_cannot_serve(bare: Interface, words: str) -> None:
    with pytest.raises(ExternalError, match=words):
        chosen(underlay=Underlay((bare,), {4: 2}))


def test_lasting_addresses_are_preferred() -> None:
    """A temporary address of IPv6 privacy, or one about to go, is nobody's next hop for long."""
    entries = (
        InterfaceAddress(ip_address("fe80::2"), IFA_F_PERMANENT),
        InterfaceAddress(ip_address("2001:db8::dead"), IFA_F_PERMANENT | IFA_F_DEPRECATED),
        InterfaceAddress(ip_address("2001:db8::77"), IFA_F_TEMPORARY),
        InterfaceAddress(ip_address("2001:db8::88"), 0),
        InterfaceAddress(ip_address("2001:db8::99"), IFA_F_PERMANENT),
    )
    found = [str(address) for address in Interface(2, "eth0", 1500, entries).best(6)]
    assert found == ["2001:db8::99", "2001:db8::88", "2001:db8::77", "fe80::2"]

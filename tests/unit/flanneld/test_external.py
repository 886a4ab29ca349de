"""Which interface reaches the others: each way to name it, their order, what if none fits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from flanneld import options
from flanneld.config import parse
from flanneld.external import ExternalError, choose
from flanneld.links import (
    IFA_F_DEPRECATED,
    IFA_F_PERMANENT,
    IFA_F_TEMPORARY,
    NOTHING,
    Interface,
    InterfaceAddress,
    Known,
    Underlay,
    Way,
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
UNDERLAY = Underlay((interface(1, "lo", "127.0.0.1", "::1"), ETH0, ETH1), {4: (2,), 6: (2,)})


def chosen(
    *argv: str, conf: object = V4, underlay: Underlay = UNDERLAY, known: Known = NOTHING
) -> tuple[str, ...]:
    found = choose(options.read(argv, {}), conf, underlay, known)  # type: ignore[arg-type]
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
        chosen(underlay=replace(UNDERLAY, defaults={4: (), 6: (2,)}))


def test_default_routes_of_two_interfaces() -> None:
    with pytest.raises(ExternalError, match="v6 default route interface eth1 must be the same"):
        chosen(conf=BOTH, underlay=replace(UNDERLAY, defaults={4: (2,), 6: (3,)}))


@pytest.mark.parametrize(
    ("bare", "words"),
    [
        (interface(2, "eth0", "fe80::2"), "failed to find IPv4 address for eth0"),
        (interface(2, "eth0", "10.0.2.15", mtu=0), "failed to determine MTU for eth0"),
    ],
)
def test_an_interface_that_cannot_serve(bare: Interface, words: str) -> None:
    with pytest.raises(ExternalError, match=words):
        chosen(underlay=Underlay((bare,), {4: (2,)}))


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


def v4(*entries: tuple[str, int, int]) -> Interface:
    """An interface with IPv4 addresses: each with its prefix length and flags."""
    found = (InterfaceAddress(ip_address(text), flags, length) for text, length, flags in entries)
    return Interface(2, "eth0", 1500, tuple(found))


DYNAMIC, PERMANENT, SECOND = 0, IFA_F_PERMANENT, IFA_F_PERMANENT | 1


@pytest.mark.parametrize(
    "entries",
    [
        [("192.0.2.100", 32, PERMANENT), ("192.0.2.2", 24, DYNAMIC)],  # keepalived's, first
        [("192.0.2.100", 32, PERMANENT), ("192.0.2.2", 24, PERMANENT)],
        [("192.0.2.100", 24, PERMANENT), ("192.0.2.2", 24, DYNAMIC)],
        [("192.0.2.2", 24, PERMANENT), ("192.0.2.100", 24, SECOND)],
        [("192.0.2.2", 32, DYNAMIC), ("192.0.2.100", 32, PERMANENT)],  # a cloud's, by DHCP
    ],
)
def test_an_address_that_wanders_is_not_the_node_s(entries: list[tuple[str, int, int]]) -> None:
    underlay = Underlay((v4(*entries),), {4: (2,)})
    assert chosen(underlay=underlay)[1] == "192.0.2.2"


def test_the_default_route_s_source_is_the_node_s() -> None:
    entries = [("192.0.2.100", 24, PERMANENT), ("192.0.2.2", 24, SECOND)]
    underlay = Underlay((v4(*entries),), {4: (2,)}, {4: ip_address("192.0.2.2")})
    assert chosen(underlay=underlay)[1] == "192.0.2.2"


def test_leases_decide_between_addresses() -> None:
    """The one in this node's lease is kept while it is there; another node's is never taken."""
    entries = [("192.0.2.100", 24, PERMANENT), ("192.0.2.2", 24, SECOND)]
    underlay = Underlay((v4(*entries),), {4: (2,)})
    assert chosen(underlay=underlay)[1] == "192.0.2.100"
    held = frozenset({ip_address("192.0.2.2")})
    theirs = frozenset({ip_address("192.0.2.100")})
    assert chosen(underlay=underlay, known=Known(held=held))[1] == "192.0.2.2"
    assert chosen(underlay=underlay, known=Known(others=theirs))[1] == "192.0.2.2"
    assert chosen(underlay=underlay, known=Known(held=theirs, others=held))[1] == "192.0.2.100"


def test_a_store_may_ask_for_addresses_and_flags_come_first() -> None:
    asked = Known(asked=(ip_address("192.0.2.33"), ip_address("2001:db8:3::3")))
    assert chosen(known=asked) == ("eth1", "192.0.2.33", "192.0.2.33")
    whole = ("eth1", "192.0.2.33", "192.0.2.33", "2001:db8:3::3", "2001:db8:3::3")
    assert chosen(conf=BOTH, known=asked) == whole
    assert chosen("--public-ip=10.0.2.15", known=asked)[:2] == ("eth0", "10.0.2.15")


CNI0 = replace(interface(9, "cni0", "10.244.1.1"), kind="bridge")
FLANNEL = replace(interface(8, "flannel.1", "10.244.1.0"), kind="vxlan")
MARKED = replace(interface(8, "vx", "10.244.1.0"), alias="flanneld 10.244.0.0/16")


@pytest.mark.parametrize("own", [CNI0, FLANNEL, MARKED], ids=["cni0", "flannel.1", "by alias"])
@pytest.mark.parametrize(
    "argv", [[], ["--iface={}"], ["--iface-regex=^10.244"], ["--iface-can-reach=10.244.1.9"]]
)
def test_what_is_the_pods_leads_to_no_node(own: Interface, argv: list[str]) -> None:
    """Whatever names it: a default route, a person, a pattern."""
    underlay = Underlay((ETH0, own), {4: (own.index, 2)}, reach=(own.index, None))
    words = [one.format(own.name) for one in argv]
    if not argv:
        assert chosen(underlay=underlay)[0] == "eth0"
        return
    with pytest.raises(ExternalError, match=f"the pods' own, which lead to no node: {own.name}"):
        chosen(*words, underlay=underlay)


def test_a_bridge_with_the_node_s_own_subnet_is_the_pods() -> None:
    bridge = replace(interface(9, "br-pods", "10.9.1.77"), kind="bridge")
    underlay = Underlay((ETH0, bridge), {4: (9, 2)})
    assert chosen(underlay=underlay)[0] == "br-pods"
    known = Known(pods=(ip_network("10.9.1.0/24"),))
    assert chosen(underlay=underlay, known=known)[0] == "eth0"


class TestTheOneInUse:
    NOW = Known(held=frozenset({ip_address("10.0.2.15")}), now="eth0")
    PEERS = frozenset({ip_address("10.0.2.16"), ip_address("10.0.2.17")})

    def test_a_newcomer_does_not_take_over(self) -> None:
        """A VPN with a better metric, while the old default route is still there."""
        underlay = replace(UNDERLAY, defaults={4: (3, 2)})
        assert chosen(underlay=underlay)[0] == "eth1"
        assert chosen(underlay=underlay, known=self.NOW)[0] == "eth0"
        assert chosen(underlay=underlay, known=replace(self.NOW, now=""))[0] == "eth0"

    def test_it_stays_while_all_others_are_on_its_link(self) -> None:
        link = Way(2, ip_network("10.0.2.0/24"))
        underlay = replace(UNDERLAY, defaults={4: (3,)}, ways=(link,))
        assert chosen(underlay=underlay, known=self.NOW)[0] == "eth1"
        known = replace(self.NOW, others=self.PEERS)
        assert chosen(underlay=underlay, known=known)[0] == "eth0"
        bad = self.PEERS | {ip_address("198.51.100.7")}
        assert chosen(underlay=underlay, known=replace(known, others=bad))[0] == "eth0"
        far = bad | {ip_address(f"198.51.100.{host}") for host in (8, 9)}
        assert chosen(underlay=underlay, known=replace(known, others=far))[0] == "eth1"

    def test_it_stays_while_routes_lead_through_it_to_all_others(self) -> None:
        ways = (Way(3, ip_network("0.0.0.0/0")), Way(2, ip_network("10.0.0.0/8")))
        underlay = replace(UNDERLAY, defaults={4: (3,)}, ways=ways)
        known = replace(self.NOW, others=self.PEERS)
        assert chosen(underlay=underlay, known=known)[0] == "eth0"
        for taken in ("10.0.2.0/24", "10.0.0.0/8"):  # more exact; with a better metric
            worse = (Way(2, ip_network("10.0.0.0/8"), metric=9), Way(3, ip_network(taken)))
            apart = replace(underlay, ways=worse)
            assert chosen(underlay=apart, known=known)[0] == "eth1"

    def test_one_without_a_carrier_is_left(self) -> None:
        dead = replace(ETH0, running=False)
        underlay = Underlay((dead, ETH1), {4: (3, 2)})
        assert chosen(underlay=underlay, known=replace(self.NOW, others=self.PEERS))[0] == "eth1"

    def test_both_families_want_one_interface(self) -> None:
        underlay = replace(UNDERLAY, defaults={4: (3, 2), 6: (2,)})
        assert chosen(conf=BOTH, underlay=underlay)[0] == "eth0"

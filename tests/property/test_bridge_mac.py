"""The MAC that follows from a pod's address: another one for another address."""

from __future__ import annotations

import netaddr
from hypothesis import assume, given
from hypothesis import strategies as st

from cni.cidr import Address, Prefix
from cni_flannel.bridge import plan
from cni_flannel.bridge.layer3 import Layer3

NEAR = 2**17  # what docs/decisions/0004-mac.md promises
HOSTS = st.integers(0, NEAR - 1)


def mac_of(value: int, version: int = 6) -> netaddr.EUI:
    layer3 = Layer3([], {})
    layer3.addresses = [Prefix(Address(version, value), 64 if version == 6 else 24)]
    text = plan.pod_mac(layer3, "")
    return netaddr.EUI(text, dialect=netaddr.mac_unix_expanded)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
def test_it_is_a_unicast_one_of_the_locally_administered(six: int, four: int) -> None:
    first, second = mac_of(six), mac_of(four, 4)
    assert first.words[0] & 3 == second.words[0] & 3 == 2
    assert first != second
    assert second.words == (0x0A, 0x58, *netaddr.IPAddress(four, 4).words)


@given(st.integers(0, 2**128 - 2**41), st.integers(1, 2**41 - 1))
def test_two_addresses_of_one_subnet_differ_in_it(value: int, distance: int) -> None:
    assert mac_of(value) != mac_of(value + distance)


@given(st.sampled_from(range(16, 84, 4)), HOSTS, HOSTS, HOSTS, HOSTS)
def test_two_subnets_of_one_network_differ_in_it(
    length: int, subnet: int, other: int, host: int, other_host: int
) -> None:
    assume(subnet != other and max(subnet, other) < 2**length)
    shift = 128 - length
    assert mac_of((subnet << shift) + host) != mac_of((other << shift) + other_host)

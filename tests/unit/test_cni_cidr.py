"""Addresses and prefixes: what is accepted, how they print, how they count."""

from __future__ import annotations

import pytest

from cni.cidr import Address, Prefix, parse_address, parse_prefix

# text -> how Go's net.IP prints what net.ParseIP read
ADDRESSES = [
    ("10.0.0.1", "10.0.0.1"),
    ("0.0.0.0", "0.0.0.0"),  # noqa: S104
    ("::", "::"),
    ("::1", "::1"),
    ("FD00::00Ab", "fd00::ab"),
    ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
    ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
    ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
    ("::ffff:10.0.0.1", "10.0.0.1"),
    ("::1.2.3.4", "::102:304"),
    ("::8000", "::8000"),
    ("::1:0", "::1:0"),
]


@pytest.mark.parametrize(("text", "printed"), ADDRESSES)
def test_an_address_prints_as_in_go(text: str, printed: str) -> None:
    assert str(parse_address(text)) == printed


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "010.0.0.1", "10.0.0.256", "10.0.0.1 ", "fe80::1%eth0", "1::2::3", ":1", "::g",
     "1:2:3:4:5:6:7:8:9", "10.0.0.1/24", "\u0661.0.0.1", "a\0", "\udc80"],
)  # fmt: skip
def test_what_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid IP address: "):
        parse_address(text)


PREFIXES = [
    # text, printed, network, first, last
    ("10.1.2.3/8", "10.1.2.3/8", "10.0.0.0/8", "10.0.0.0", "10.255.255.255"),
    ("10.1.2.3/32", "10.1.2.3/32", "10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
    ("0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0", "0.0.0.0", "255.255.255.255"),  # noqa: S104
    ("fd00::5/126", "fd00::5/126", "fd00::4/126", "fd00::4", "fd00::7"),
    ("::ffff:10.0.0.1/120", "10.0.0.1/24", "10.0.0.0/24", "10.0.0.0", "10.0.0.255"),
    ("10.0.0.1/024", "10.0.0.1/24", "10.0.0.0/24", "10.0.0.0", "10.0.0.255"),
]


@pytest.mark.parametrize(("text", "printed", "network", "first", "last"), PREFIXES)
def test_a_prefix_keeps_its_host_bits(
    text: str, printed: str, network: str, first: str, last: str
) -> None:
    prefix = parse_prefix(text)
    assert str(prefix) == printed
    assert str(prefix.network) == network
    assert (str(prefix.first), str(prefix.last)) == (first, last)
    assert prefix.broadcast == prefix.last


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/255.0.0.0",
     "fd00::/129", "/8", "x/8", "10.0.0.0/8/8", "::ffff:10.0.0.0/24", "10.0.0.0/\u0668",
     "1.2.3.4/99999999"],
)  # fmt: skip
def test_a_bad_prefix_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="invalid CIDR address: ") as caught:
        parse_prefix(text)
    assert text in str(caught.value)


def test_counting_stops_at_the_ends() -> None:
    assert str(parse_address("10.0.0.255").succ()) == "10.0.1.0"
    assert str(parse_address("fd00::1:0").pred()) == "fd00::ffff"
    assert str(parse_address("10.0.0.1") + 254) == "10.0.0.255"
    with pytest.raises(OverflowError):
        parse_address("255.255.255.255").succ()
    with pytest.raises(OverflowError):
        parse_address("::").pred()


def test_order_is_by_family_then_value() -> None:
    texts = ["fd00::1", "10.0.0.2", "::1", "10.0.0.1"]
    ordered = [str(address) for address in sorted(map(parse_address, texts))]
    assert ordered == ["10.0.0.1", "10.0.0.2", "::1", "fd00::1"]
    low, high = Address(4, 1), Address(4, 2)
    assert low < high
    assert low <= high
    assert high > low
    assert high >= low


def test_packed_goes_both_ways() -> None:
    for text in ("10.0.0.1", "fd00::1"):
        address = parse_address(text)
        assert Address.from_packed(address.packed) == address
        assert address.bits == len(address.packed) * 8
    with pytest.raises(ValueError, match="not 3"):
        Address.from_packed(b"abc")


def test_containing_and_overlapping() -> None:
    wide, narrow = parse_prefix("10.0.0.0/8"), parse_prefix("10.1.0.0/16")
    assert wide.contains(parse_address("10.255.0.1"))
    assert not wide.contains(parse_address("11.0.0.1"))
    assert not wide.contains(parse_address("::a00:1"))
    assert wide.overlaps(narrow)
    assert narrow.overlaps(wide)
    assert not narrow.overlaps(parse_prefix("10.2.0.0/16"))
    assert not wide.overlaps(parse_prefix("::/0"))


def test_values_compare_and_hash() -> None:
    assert {parse_prefix("10.0.0.1/8"), Prefix(Address(4, 0x0A000001), 8)} == {
        parse_prefix("10.0.0.1/8")
    }
    assert Address(4, 1) != Address(6, 1)
    assert Address(4, 1) != 1
    assert Prefix(Address(4, 1), 8) != "0.0.0.1/8"
    assert parse_prefix("10.0.0.1/8").network != parse_prefix("10.0.0.1/8")
    assert repr(parse_prefix("10.0.0.1/8")) == "Prefix('10.0.0.1/8')"
    assert repr(Address(4, 1)) == "Address('0.0.0.1')"


@pytest.mark.parametrize("length", [-1, 33])
def test_no_prefix_is_longer_than_its_address(length: int) -> None:
    with pytest.raises(ValueError, match="prefix length"):
        Prefix(Address(4, 0), length)

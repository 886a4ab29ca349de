"""IPv4 headers at the edges that random ones seldom reach."""

from __future__ import annotations

import struct

import pytest

from flanneld.forward import packet
from tests.property.test_forward_packet import lowered, words_sum


def header(ttl: int = 64, protocol: int = 17, identification: int = 0, fragment: int = 0) -> bytes:
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, 28, identification, fragment, ttl, protocol, 0)
    )
    head += bytes((10, 1, 1, 9, 10, 1, 2, 9))
    struct.pack_into("!H", head, 10, words_sum(bytes(head)))
    return bytes(head)


@pytest.mark.parametrize(("ttl", "lives"), [(0, False), (1, False), (2, True), (255, True)])
def test_the_last_hop(ttl: int, lives: bool) -> None:  # noqa: FBT001 - a column of the table
    one, many = bytearray(header(ttl)), bytearray(header(ttl))
    assert packet.lower_ttl(one, 0) == lives
    assert packet.lower_ttls(many, 20, 1) == ([] if lives else [0])
    if lives:
        assert one == many == lowered(header(ttl))


def test_checksums_with_a_carry() -> None:
    """Every one that taking one from the time to live brings beyond 16 bits, and those beside."""
    near = [each for each in map(edge, range(1 << 16)) if each[10] >= 0xFD]
    assert {struct.unpack_from("!H", each, 10)[0] for each in near} >= {0xFEFF, 0xFEFE, 0xFFFE}
    for each in near:
        buffer = bytearray(each)
        assert packet.lower_ttl(buffer, 0)
        assert bytes(buffer) == lowered(each)


def edge(identification: int) -> bytes:
    return header(identification=identification)


@pytest.mark.parametrize(
    ("first", "length", "came", "whole"),
    [
        (0x45, 20, 20, True),
        (0x45, 21, 20, False),  # more than came
        (0x45, 20, 30, True),  # padding behind
        (0x46, 20, 30, False),  # the header alone is longer
        (0x46, 24, 24, True),
        (0x44, 20, 20, False),  # no header is so short
        (0x65, 20, 20, False),
        (0x45, 20, 19, False),
    ],
)
def test_what_is_a_packet(first: int, length: int, came: int, whole: bool) -> None:  # noqa: FBT001
    buffer = bytearray(struct.pack("!BBH", first, 0, length).ljust(40, b"\1"))
    assert packet.is_ipv4(buffer, 0, came) == whole


def test_who_gets_an_answer() -> None:
    assert packet.unreachable(header() + bytes(8)) is not None
    assert packet.unreachable(header(protocol=packet.ICMP) + bytes(8)) is None
    assert packet.unreachable(header(fragment=1) + bytes(8)) is None
    assert packet.unreachable(header(fragment=0x4000) + bytes(8)) is not None  # do not fragment

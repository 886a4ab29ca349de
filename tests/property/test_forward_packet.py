"""IPv4 headers: what is mended byte by byte is what a whole computation gives."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from flanneld.forward import packet

ADDRESS = st.binary(min_size=4, max_size=4)


def words_sum(data: bytes) -> int:
    """The checksum as RFC 1071 describes it, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@st.composite
def headers(draw: st.DrawFn, payload: int = 0) -> bytes:
    """A header with a right checksum, of any content, options included."""
    options = draw(st.binary(max_size=36)).ljust(40)[: 4 * draw(st.integers(0, 9))]
    length = packet.HEADER + len(options)
    head = bytearray(
        struct.pack(
            "!BBHHHBBH",
            0x40 | length // 4,
            draw(st.integers(0, 255)),
            length + payload,
            draw(st.integers(0, 0xFFFF)),
            draw(st.integers(0, 0xFFFF)),
            draw(st.integers(0, 255)),
            draw(st.integers(0, 255)),
            0,
        )
        + draw(ADDRESS)
        + draw(ADDRESS)
        + options
    )
    struct.pack_into("!H", head, 10, words_sum(bytes(head)))
    return bytes(head)


def lowered(packet: bytes) -> bytes:
    """The same with one less to live, and its header's checksum from the beginning."""
    changed = bytearray(packet)
    changed[8] -= 1
    changed[10:12] = b"\0\0"
    header = bytes(changed[: (changed[0] & 15) * 4])
    struct.pack_into("!H", changed, 10, words_sum(header))
    return bytes(changed)


@given(st.binary(max_size=1500))
def test_checksum_is_rfc_1071_s(data: bytes) -> None:
    assert packet.checksum(data) == words_sum(data)


@given(headers())
def test_one_header(header: bytes) -> None:
    buffer = bytearray(b"before" + header + b"behind")
    lives = packet.lower_ttl(buffer, 6)
    assert lives == (header[8] > 1)
    assert bytes(buffer) == b"before" + (lowered(header) if lives else header) + b"behind"


@given(st.lists(headers(), min_size=1, max_size=60), st.integers(60, 90))
def test_many_headers_at_a_distance(some: list[bytes], stride: int) -> None:
    buffer = bytearray(b"".join(header.ljust(stride, b"\xaa") for header in some))
    ended = packet.lower_ttls(buffer, stride, len(some))
    assert ended == [index for index, header in enumerate(some) if header[8] <= 1]
    for index, header in enumerate(some):
        if index not in ended:
            at = index * stride
            assert bytes(buffer[at : at + stride]) == lowered(header).ljust(stride, b"\xaa")


@given(st.lists(st.one_of(headers(), st.just(b"\x60".ljust(40, b"\1"))), min_size=1, max_size=9))
def test_destinations_of_many(some: list[bytes]) -> None:
    buffer = bytearray(b"".join(header.ljust(80) for header in some))
    assert packet.destinations(buffer, 80, len(some)) == [
        header[16:20] if header[0] >> 4 == 4 else b"" for header in some
    ]


@given(headers(payload=8))
def test_the_answer_quotes_the_packet_and_is_whole(header: bytes) -> None:
    answer = packet.unreachable(header + b"12345678")
    silent = header[9] == packet.ICMP or struct.unpack_from("!H", header, 6)[0] & 0x1FFF
    if silent or len(header) == 60:
        assert answer is None
        return
    assert answer is not None
    assert words_sum(answer[:20]) == words_sum(answer[20:]) == 0
    assert (answer[8], answer[9], answer[12:16], answer[16:20]) == (
        8,
        1,
        header[16:20],
        header[12:16],
    )
    assert struct.unpack_from("!H", answer, 2)[0] == len(answer)
    assert answer[20:22] == bytes([3, 0])
    assert answer[28:] == header + b"12345678"


@given(st.binary(max_size=80))
def test_no_bytes_are_taken_for_a_packet_that_are_none(data: bytes) -> None:
    buffer = bytearray(data)
    if packet.is_ipv4(buffer, 0, len(data)):
        header = (data[0] & 15) * 4
        assert data[0] >> 4 == 4
        assert 20 <= header <= struct.unpack_from("!H", data, 2)[0] <= len(data)

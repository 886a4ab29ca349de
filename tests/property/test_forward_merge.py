"""Joined segments: parted again as the kernel would, they are the packets that came.

The oracle parts a vector by its virtio_net_hdr alone, and computes each checksum word by word.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from flanneld.forward import merge
from tests.property.test_forward_packet import lowered, words_sum

STRIDE = 120
HOSTS = b"\x0a\x01\x01\x02\x0a\x01\x02\x02"
TIMESTAMP = b"\x01\x01\x08\x0a" + bytes(8)


@dataclass(frozen=True)
class Segment:
    sequence: int
    payload: bytes
    flags: int = 0x10
    ttl: int = 63
    acknowledged: int = 7
    port: int = 5001
    options: bytes = b""
    identification: int = 1
    protocol: int = 6

    def packet(self) -> bytes:
        """The whole IPv4 packet with right checksums."""
        tcp = bytearray(
            struct.pack(
                "!HHIIBBHHH",
                40000,
                self.port,
                self.sequence & 0xFFFFFFFF,
                self.acknowledged,
                (20 + len(self.options)) << 2,
                self.flags,
                512,
                0,
                0,
            )
            + self.options
            + self.payload
        )
        pseudo = HOSTS + struct.pack("!HH", self.protocol, len(tcp))
        struct.pack_into("!H", tcp, 16, words_sum(pseudo + bytes(tcp)))
        head = bytearray(
            struct.pack(
                "!BBHHHBBH",
                0x45,
                0,
                20 + len(tcp),
                self.identification,
                0x4000,
                self.ttl,
                self.protocol,
                0,
            )
            + HOSTS
        )
        struct.pack_into("!H", head, 10, words_sum(bytes(head)))
        return bytes(head + tcp)


def written(packets: list[bytes], stride: int) -> list[bytes]:
    """Give what is written to the device for packets that lie at a distance."""
    data = b"".join(packets)
    buffer = bytearray(data.ljust(1 << 16, b"\xee"))
    vectors = merge.merged(buffer, memoryview(buffer), len(data), stride, lambda *_: True)
    return [b"".join(bytes(part) for part in vector) for vector in vectors]


def parted(frame: bytes) -> list[bytes]:
    """Part what was written by its virtio_net_hdr, as the kernel's TCP segmentation does."""
    flags, kind, head, size, start, offset = merge.VNET.unpack_from(frame)
    packet = frame[merge.VNET.size :]
    if not kind:
        assert flags == 0
        return [packet]
    assert (flags, kind, start, offset) == (1, 1, 20, 16)
    assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
    assert words_sum(packet[:20]) == 0
    pseudo = HOSTS + struct.pack("!HH", 6, len(packet) - 20)
    assert struct.unpack_from("!H", packet, 36)[0] == 0xFFFF - words_sum(pseudo)
    sequence = struct.unpack_from("!I", packet, 24)[0]
    parts = []
    for at in range(head, len(packet), size):
        last = at + size >= len(packet)
        parts.append(
            Segment(
                sequence + at - head,
                packet[at : at + size],
                flags=packet[33] if last else packet[33] & ~0x08,
                ttl=packet[8],
                acknowledged=struct.unpack_from("!I", packet, 28)[0],
                port=struct.unpack_from("!H", packet, 22)[0],
                options=packet[40:head],
            ).packet()
        )
    return parts


def plain(packet: bytes) -> bytes:
    """A packet without what may differ: identification, a push, and the checksums of both."""
    changed = bytearray(packet)
    changed[4:6] = changed[10:12] = changed[36:38] = b"\0\0"
    changed[33] &= ~0x08
    return bytes(changed)


def stream(first: int, count: int, *, options: bytes = b"", last: int = 0) -> list[Segment]:
    """Segments of one flow that follow one another; the last may be shorter."""
    size = STRIDE - 40 - len(options)
    sizes = [size] * (count - 1) + [last or size]
    return [
        Segment(
            first + index * size,
            bytes((index + byte) & 0xFF for byte in range(length)),
            options=options,
            identification=index,
        )
        for index, length in enumerate(sizes)
    ]


@given(
    first=st.sampled_from([0, 1000, 0xFFFFFFFF - 200]),
    count=st.integers(4, 44),
    options=st.sampled_from([b"", TIMESTAMP]),
    last=st.integers(1, 60),
)
def test_a_whole_stream_is_one_packet(first: int, count: int, options: bytes, last: int) -> None:
    segments = stream(first, count, options=options, last=last)
    frames = written([segment.packet() for segment in segments], STRIDE)
    assert len(frames) == 1 or first > 1000  # numbers that begin anew part the run
    back = [packet for frame in frames for packet in parted(frame)]
    assert list(map(plain, back)) == [plain(lowered(segment.packet())) for segment in segments]


CHANGES = st.sampled_from([
    {},
    {},
    {},
    {"flags": 0x18},
    {"flags": 0x11},
    {"flags": 0x02},
    {"ttl": 9},
    {"ttl": 1},
    {"acknowledged": 8},
    {"port": 80},
    {"sequence": 5},
    {"protocol": 17},
])  # fmt: skip


@given(st.lists(CHANGES, min_size=1, max_size=30), st.sampled_from([b"", TIMESTAMP]))
def test_whatever_comes_leaves_in_order_with_one_less_to_live(
    changes: list[dict[str, int]], options: bytes
) -> None:
    segments = [
        replace(segment, **change)  # type: ignore[arg-type] # numbers all
        for segment, change in zip(stream(100, len(changes), options=options), changes, strict=True)
    ]
    packets = [segment.packet() for segment in segments]
    back = [packet for frame in written(packets, STRIDE) for packet in parted(frame)]
    expected = [lowered(packet) for packet in packets if packet[8] > 1]
    assert list(map(plain, back)) == list(map(plain, expected))


@given(st.lists(CHANGES, min_size=3, max_size=30))
def test_what_is_written_alone_is_untouched_but_for_its_life(
    changes: list[dict[str, int]],
) -> None:
    segments = [
        replace(segment, **change)  # type: ignore[arg-type] # numbers all
        for segment, change in zip(stream(100, len(changes)), changes, strict=True)
    ]
    packets = [segment.packet() for segment in segments]
    alone = [frame[merge.VNET.size :] for frame in written(packets, STRIDE) if not frame[1]]
    assert set(alone) <= {lowered(packet) for packet in packets if packet[8] > 1}


@given(st.binary(max_size=400), st.integers(1, 130))
def test_any_bytes_give_whole_ipv4_packets_or_nothing(data: bytes, stride: int) -> None:
    for frame in written([data], stride):
        packet = frame[merge.VNET.size :]
        assert packet[0] >> 4 == 4
        assert struct.unpack_from("!H", packet, 2)[0] == len(packet)

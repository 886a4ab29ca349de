"""TCP segments that came in one batch, made one again for the TUN device (virtio_net.h).  Pure.

UDP_GRO (udp(7)) gives the datagrams of a flow in one buffer, at equal distances.  Those that
continue one another become one packet with a header that tells the kernel how to part it again, so
that it passes the node's stack and the pod's once.  The kernel's own rules for this apply: same
addresses, ports, options and acknowledgement; sequence without a gap.  A push in the middle is
pushed at the end: both arrive at once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from flanneld.forward import packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Vector = list[bytes | bytearray | memoryview]

VNET = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NO_VNET = bytes(VNET.size)

_NEEDS_CSUM, _GSO_TCPV4 = 1, 1
_CSUM_AT = 16  # where a TCP header has its checksum
_DATA_FLAGS = bytes([0x10, 0x18])  # ACK, and PSH or not
_FEWEST = 3  # fewer are not worth the look
_LONGEST = 0xFFFF
_IP, _TCP = packet.HEADER, 20

# The bytes in which segments of one flow agree: not identification, checksums, sequence, flags.
_LENGTH = (2, 3)
_ALWAYS = (0, 1, *_LENGTH, 6, 7, 8, 9, *range(12, 24), *range(28, 33), 34, 35, 38, 39)
_COLUMNS = {head: (*_ALWAYS, *range(_IP + _TCP, head)) for head in range(_IP + _TCP, 81, 4)}
_FLAGS, _SEQUENCE = 33, 24
_ROUND = 1 << 32


def merged(
    buffer: bytearray,
    view: memoryview,
    size: int,
    stride: int,
    admits: Callable[[bytearray, int], bool],
) -> Iterator[Vector]:
    """Give what is to be written to the device, a vector for each packet.

    ``buffer`` (``view`` looks at it) holds ``size`` bytes: packets at distances of ``stride``, the
    last may be shorter.  Times to live are lowered; what is no IPv4 packet, is not admitted or
    ends here is left out.
    """
    at = 0
    while at < size:
        count = _run(buffer, at, size, stride) if size - at >= _FEWEST * stride else 1
        end = min(at + count * stride, size)
        if not packet.is_ipv4(buffer, at, min(stride, end - at)) or not admits(buffer, at):
            pass
        elif count > 1:
            yield from _joined(buffer, view, at, end, stride)
        elif packet.lower_ttl(buffer, at):
            yield [NO_VNET, view[at : at + packet.total_length(buffer, at)]]
        at = end


def _run(buffer: bytearray, at: int, size: int, stride: int) -> int:
    """Count the packets from ``at`` that make one; 1 if the first makes none with the next."""
    head = _header(buffer, at, stride)
    if not head:
        return 1
    payload = stride - head
    whole = min((size - at) // stride, (_LONGEST - head) // payload)
    end = at + whole * stride
    count = whole
    for byte in _COLUMNS[head]:
        column = buffer[at + byte : end : stride]
        if column.count(column[0]) != whole:
            # How many at the front are as the first.
            count = min(count, whole - len(column.lstrip(column[:1])))
    flags = buffer[at + _FLAGS : at + count * stride : stride]
    count -= len(flags.lstrip(_DATA_FLAGS))
    count = _in_sequence(buffer, at, stride, payload, count)
    last = at + count * stride
    if count == whole and last < size < last + stride:
        count += _continues(buffer, at, last, size - last, payload * count)
    return count


def _header(buffer: bytearray, at: int, length: int) -> int:
    """Give the length of the headers of a segment that may be joined with the next; else 0."""
    if (
        length < _IP + _TCP
        or buffer[at] != 0x45
        or packet.total_length(buffer, at) != length
        or buffer[at + 9] != packet.TCP
        or buffer[at + 6] & 0x3F  # a fragment
        or buffer[at + 7]
        or buffer[at + _FLAGS] not in _DATA_FLAGS
    ):
        return 0
    head = _IP + (buffer[at + 32] >> 4) * 4
    return head if _IP + _TCP <= head < length else 0


def _in_sequence(buffer: bytearray, at: int, stride: int, payload: int, count: int) -> int:
    """Count how many of the first ``count`` follow one another without a gap."""
    end = at + count * stride
    first = int.from_bytes(buffer[at + _SEQUENCE : at + _SEQUENCE + 4], "big")
    numbers = range(first, first + count * payload, payload)
    if numbers[-1] >= _ROUND:
        numbers = range(first, _ROUND, payload)  # the run ends where the numbers begin anew
        count = len(numbers)
        end = at + count * stride
    wanted = struct.pack(f"!{count}I", *numbers)
    for byte in range(4):
        column = buffer[at + _SEQUENCE + byte : end : stride]
        expected = wanted[byte::4]
        if column != expected:
            pairs = enumerate(zip(column, expected, strict=True))
            count = min(count, next(index for index, (is_, should) in pairs if is_ != should))
    return count


def _continues(buffer: bytearray, at: int, last: int, length: int, behind: int) -> bool:
    """Whether the shorter packet at ``last`` belongs to the run: ``behind`` is its place there."""
    head = _IP + (buffer[at + 32] >> 4) * 4
    sequence = int.from_bytes(buffer[at + _SEQUENCE : at + _SEQUENCE + 4], "big") + behind
    return (
        length > head
        and behind + length <= _LONGEST
        and packet.total_length(buffer, last) == length
        and all(
            buffer[last + byte] == buffer[at + byte]
            for byte in _COLUMNS[head]
            if byte not in _LENGTH
        )
        and buffer[last + _FLAGS] in _DATA_FLAGS
        and int.from_bytes(buffer[last + _SEQUENCE : last + _SEQUENCE + 4], "big")
        == sequence & 0xFFFFFFFF
    )


def _joined(
    buffer: bytearray, view: memoryview, at: int, end: int, stride: int
) -> Iterator[Vector]:
    """Make one packet of a run; the checksum is left to whoever parts it again."""
    if buffer[at + 8] <= 1:  # the time to live
        return
    head = _IP + (buffer[at + 32] >> 4) * 4
    starts = range(at, end, stride)
    payloads = [view[start + head : start + stride] for start in starts[:-1]]
    payloads.append(view[starts[-1] + head : end])
    total = end - at - len(payloads) * head + head
    header = buffer[at : at + head]
    struct.pack_into("!H", header, 2, total)
    header[8] -= 1
    header[10:12] = b"\0\0"
    struct.pack_into("!H", header, 10, packet.checksum(header[:_IP]))
    header[_FLAGS] = max(buffer[at + _FLAGS : end : stride])  # pushed if any of them is
    pseudo = header[12:20] + struct.pack("!HH", packet.TCP, total - _IP)
    struct.pack_into("!H", header, _IP + _CSUM_AT, 0xFFFF - packet.checksum(pseudo))
    vnet = VNET.pack(_NEEDS_CSUM, _GSO_TCPV4, head, stride - head, _IP, _CSUM_AT)
    yield [vnet, header, *payloads]

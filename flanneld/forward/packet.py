"""IPv4 packets as bytes: the little that a forwarder must know of them (RFC 791, 792, 1624).

Pure.  Packets stand in a buffer, one or several at equal distances (``stride``); several are read
and written a header byte at a time, which costs Python the same for one packet as for fifty.
"""

from __future__ import annotations

import struct

HEADER = 20  # bytes of an IPv4 header without options
TCP, ICMP = 6, 1
NET_UNREACHABLE = (3, 0)  # ICMP type and code

SOURCE = 12  # where the header has the source address, and behind it the destination
_TTL, _PROTOCOL, _CHECKSUM, _DESTINATION = 8, 9, 10, 16
_END, _NO_OPERATION, _LOOSE, _STRICT = 0, 1, 0x83, 0x89  # options: types of RFC 791
_FRAGMENT_OFFSET = 0x1FFF
_ICMP_TTL = 8  # as the Go daemon's
_LONGEST_HEADER = 60

_LOWER = bytes((value - 1) & 0xFF for value in range(256))
_RAISE = bytes((value + 1) & 0xFF for value in range(256))


def checksum(data: bytes | bytearray | memoryview) -> int:
    """Give the Internet checksum of the data (RFC 1071): what its 16-bit words lack to 0xffff.

    The sum of words is the number that all of them spell, modulo 0xffff.
    """
    number = int.from_bytes(data, "big") << (8 if len(data) % 2 else 0)
    return 0xFFFF - (number % 0xFFFF or 0xFFFF * bool(number))


def is_ipv4(buffer: bytearray, at: int, length: int) -> bool:
    """Whether a whole IPv4 packet of at most ``length`` bytes begins there."""
    if length < HEADER or buffer[at] >> 4 != 4:
        return False
    header = (buffer[at] & 0x0F) * 4
    return HEADER <= header <= total_length(buffer, at) <= length


def is_source_routed(buffer: bytearray, at: int) -> bool:
    """Whether the packet that begins there names the routers of its way, or has broken options."""
    end = at + (buffer[at] & 0x0F) * 4
    at += HEADER
    while at < end and buffer[at] != _END:
        if buffer[at] == _NO_OPERATION:
            at += 1
            continue
        if buffer[at] in {_LOOSE, _STRICT} or at + 1 == end or buffer[at + 1] < 2:
            return True
        at += buffer[at + 1]
    return at > end


def total_length(buffer: bytearray, at: int) -> int:
    """Give the length in bytes that the packet's header tells."""
    return buffer[at + 2] << 8 | buffer[at + 3]


def lower_ttl(buffer: bytearray, at: int) -> bool:
    """Take one from the packet's time to live and mend its checksum; False: it ends here."""
    if buffer[at + _TTL] <= 1:
        return False
    buffer[at + _TTL] -= 1
    _mend(buffer, at)
    return True


def lower_ttls(buffer: bytearray, stride: int, count: int) -> list[int]:
    """Do the same for ``count`` packets, and give the indexes of those that end here."""
    end = stride * count
    times = buffer[_TTL:end:stride]
    buffer[_TTL:end:stride] = times.translate(_LOWER)
    high = buffer[_CHECKSUM:end:stride]
    # One less in the word of the time to live is 0x0100 more in the checksum.
    buffer[_CHECKSUM:end:stride] = high.translate(_RAISE)
    if b"\xff" in high or b"\xfe" in high:
        for index, value in enumerate(high):
            if value >= 0xFE:  # may have carried
                buffer[index * stride + _CHECKSUM] = value
                _mend(buffer, index * stride)
    if min(times) > 1:
        return []
    return [index for index, time in enumerate(times) if time <= 1]


def _mend(buffer: bytearray, at: int) -> None:
    value = (buffer[at + _CHECKSUM] << 8 | buffer[at + _CHECKSUM + 1]) + 0x0100
    value += value >= 0xFFFF  # the carry comes round; and 0xffff is spelled 0
    buffer[at + _CHECKSUM] = value >> 8 & 0xFF
    buffer[at + _CHECKSUM + 1] = value & 0xFF


def destinations(buffer: bytearray, stride: int, count: int) -> list[bytes]:
    """Give the destination address of each packet; empty for what is not IPv4."""
    end = stride * count
    first = bytes(buffer[_DESTINATION : _DESTINATION + 4])
    columns = (buffer[_DESTINATION + byte : end : stride] for byte in range(4))
    if buffer[0:end:stride].count(0x45) == count and all(
        column.count(value) == count for column, value in zip(columns, first, strict=True)
    ):
        return [first] * count
    return [
        bytes(buffer[at + _DESTINATION : at + _DESTINATION + 4]) if buffer[at] >> 4 == 4 else b""
        for at in range(0, end, stride)
    ]


def unreachable(packet: bytes | bytearray | memoryview) -> bytes | None:
    """Write the ICMP answer to a packet that has no way: the network is unreachable.

    None where there is none to be given: to ICMP itself, to a fragment other than the first, and
    (as in the Go daemon) to a header of the greatest length.  It comes from the address that was
    not reached: one from the device's own, as in Go, would be a martian to this node's kernel,
    which drops what comes from a device with an address of its own as the source.
    """
    header = (packet[0] & 0x0F) * 4
    offset = struct.unpack_from("!H", packet, 6)[0] & _FRAGMENT_OFFSET
    if packet[_PROTOCOL] == ICMP or offset or header >= _LONGEST_HEADER or header < HEADER:
        return None
    quoted = bytes(packet[: header + 8])
    icmp = bytearray(struct.pack("!BBHI", *NET_UNREACHABLE, 0, 0) + quoted)
    struct.pack_into("!H", icmp, 2, checksum(icmp))
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, HEADER + len(icmp), 0, 0, _ICMP_TTL, ICMP, 0))
    ip += packet[_DESTINATION : _DESTINATION + 4]
    ip += packet[SOURCE : SOURCE + 4]
    struct.pack_into("!H", ip, _CHECKSUM, checksum(ip))
    return bytes(ip + icmp)

"""Netlink framing: messages and attributes to bytes and back. Pure, no socket.

Knows: nlmsghdr, nlattr and the kernel's error reports (linux/netlink.h; RFC 3549, section 2.2).
Must not know: what any message means (that is ``rtnl``), or how it travels (``handle``).

The rule of every decoder here and in the files built on it: a value, or ValueError (the bytes
are not what the kernel's headers describe), or NetlinkError (the kernel said no). Nothing else.
Imports errno, os, struct, sys.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100  # on an error report: the request's payload is left out
NLM_F_ACK_TLVS = 0x200  # on an error report: attributes follow
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2

MAX_ERRNO = 4095
"""The largest error number the kernel returns (linux/err.h)."""

GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO)
"""What the kernel answers to a removal of what is not there."""

_U16_MAX = 0xFFFF
_U32_MAX = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port id
_ATTR = struct.Struct("=HH")  # length, type
_ATTR_U32 = struct.Struct("=HHI")
_ERROR = struct.Struct("=iIHHII")  # the error, then the header of the request it is about
_ERRNO = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length modulo 4 (NLMSG_ALIGNTO, NLA_ALIGNTO)


class NetlinkError(OSError):
    """The kernel refused a request.

    errno and strerror as of OSError; ``text`` is the kernel's own explanation or "";
    ``offset`` the position of the offending attribute within the request, or None;
    str() is the cause in lower case, as Go's, with the text after it;
    ``position`` the request's place in its batch, from 0; ``also`` the other refusals of
    the same batch, in order. What neither names was carried out.
    """

    def __init__(self, number: int, text: str = "", offset: int | None = None) -> None:
        super().__init__(number, os.strerror(number))
        self.text = text
        self.offset = offset
        self.position = 0
        self.also: tuple[NetlinkError, ...] = ()

    def __str__(self) -> str:
        cause = str(self.strerror)
        cause = cause[:1].lower() + cause[1:]
        return f"{cause}: {self.text}" if self.text else cause


class Message:
    """One netlink message: ``type``, ``flags``, ``body`` (all after the header), ``seq``.

    The sequence number is 0 in a request that was not sent yet.
    """

    __slots__ = ("body", "flags", "seq", "type")

    def __init__(self, type: int, flags: int, body: bytes, seq: int = 0) -> None:
        self.type = type
        self.flags = flags
        self.body = body
        self.seq = seq

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self.type, self.flags, self.body, self.seq) == (
            other.type,
            other.flags,
            other.body,
            other.seq,
        )

    def __hash__(self) -> int:
        return hash((self.type, self.flags, self.body, self.seq))

    def __repr__(self) -> str:
        return f"Message({self.type}, {self.flags:#x}, {self.body!r}, {self.seq})"


def pack(message: Message, seq: int, extra_flags: int = 0) -> bytes:
    """Encode one message with its header, padded so that another may follow."""
    body = message.body
    length = _HEADER.size + len(body)
    header = _HEADER.pack(length, message.type, message.flags | extra_flags, seq, 0)
    return header + body + _PADDING[length & 3]


def unpack(datagram: bytes) -> list[Message]:
    """Split what one receive returned. ValueError when a length does not fit."""
    messages = []
    start, end = 0, len(datagram)
    while start < end:
        if end - start < _HEADER.size:
            raise ValueError(f"netlink message header cut short: {end - start} bytes")
        length, kind, flags, seq, _port = _HEADER.unpack_from(datagram, start)
        if not _HEADER.size <= length <= end - start:
            raise ValueError(f"netlink message length {length} with {end - start} bytes left")
        body = datagram[start + _HEADER.size : start + length]
        messages.append(Message(kind, flags, body, seq))
        start += (length + 3) & ~3
    return messages


def attr(kind: int, value: bytes | str | int) -> bytes:
    """Encode an attribute: bytes as they are, text with its final NUL, an int as 32 bits."""
    if isinstance(value, int):
        if not 0 <= value <= _U32_MAX:
            raise ValueError(f"netlink attribute {kind}: {value} does not fit in 32 bits")
        return _ATTR_U32.pack(8, kind, value)
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError(f"netlink attribute {kind}: NUL in {value!r}")
        value = value.encode("utf-8", "surrogateescape") + b"\0"
    length = _ATTR.size + len(value)
    if length > _U16_MAX:
        raise ValueError(f"netlink attribute {kind}: {len(value)} bytes are too long")
    return _ATTR.pack(length, kind) + value + _PADDING[length & 3]


def attr_u8(kind: int, value: int) -> bytes:
    """Encode an 8-bit attribute. ValueError when it does not fit."""
    return attr(kind, _fixed(kind, value, 1))


def attr_u16(kind: int, value: int) -> bytes:
    """Encode a 16-bit attribute in the host's byte order."""
    return attr(kind, _fixed(kind, value, 2))


def _fixed(kind: int, value: int, size: int) -> bytes:
    if not 0 <= value < 1 << (8 * size):
        raise ValueError(f"netlink attribute {kind}: {value} does not fit in {8 * size} bits")
    return value.to_bytes(size, sys.byteorder)


def nested(kind: int, *attrs: bytes) -> bytes:
    """Encode an attribute that holds attributes, flagged as such."""
    return attr(kind | NLA_F_NESTED, b"".join(attrs))


def list_attrs(buffer: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Decode attributes in order, repeated ones included. Types come without their flags."""
    attrs = []
    end = len(buffer)
    header, size = _ATTR.unpack_from, _ATTR.size
    try:
        while start < end:
            length, kind = header(buffer, start)
            stop = start + length
            if length < size or stop > end:
                raise ValueError(f"netlink attribute length {length} with {end - start} bytes left")
            attrs.append((kind & NLA_TYPE_MASK, buffer[start + size : stop]))
            start += (length + 3) & ~3
    except struct.error:
        raise ValueError(f"netlink attribute header cut short: {end - start} bytes") from None
    return attrs


def parse_attrs(buffer: bytes, start: int = 0) -> dict[int, bytes]:
    """Decode attributes by type; of repeated ones the last counts."""
    return dict(list_attrs(buffer, start))


def to_int(value: bytes | None, default: int = 0) -> int:
    """Decode an unsigned integer of any width in the host's byte order."""
    return default if value is None else int.from_bytes(value, sys.byteorder)


def to_text(value: bytes | None) -> str:
    """Decode NUL-terminated text; "" when absent. Bytes that are no UTF-8 survive a round trip."""
    return "" if value is None else value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def refusal(message: Message) -> NetlinkError | None:
    """Decode NLMSG_ERROR or NLMSG_DONE: None when it reports success."""
    if message.type == NLMSG_DONE:
        return _refusal_of_dump(message)
    if len(message.body) < _ERROR.size:
        raise ValueError(f"netlink error report of {len(message.body)} bytes")
    number, length, *_ = _ERROR.unpack_from(message.body)
    if number == 0:
        return None
    start = _ERROR.size
    if not message.flags & NLM_F_CAPPED:
        start = _ERRNO.size + ((length + 3) & ~3)
    return _explained(number, message, start)


def _refusal_of_dump(message: Message) -> NetlinkError | None:
    if len(message.body) < _ERRNO.size:
        return None
    (number,) = _ERRNO.unpack_from(message.body)
    return _explained(number, message, _ERRNO.size) if number else None


def _explained(number: int, message: Message, start: int) -> NetlinkError:
    if not -MAX_ERRNO <= number < 0:
        raise ValueError(f"netlink error number {number}")
    if not message.flags & NLM_F_ACK_TLVS:
        return NetlinkError(-number)
    attrs = parse_attrs(message.body, start)
    offset = attrs.get(NLMSGERR_ATTR_OFFS)
    return NetlinkError(
        -number,
        to_text(attrs.get(NLMSGERR_ATTR_MSG)),
        None if offset is None else to_int(offset),
    )

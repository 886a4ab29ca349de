"""Netlink framing against itself, against pyroute2, and against noise."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg as PeerMessage  # noqa: N812 its class is spelled like a module

from netlink import nlmsg, port, rtnl
from netlink.nlmsg import Message, NetlinkError

TYPES = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
MESSAGES = st.builds(Message, TYPES, TYPES, st.binary(max_size=80), U32)
ATTRS = st.lists(st.tuples(st.integers(0, nlmsg.NLA_TYPE_MASK), st.binary(max_size=40)), max_size=9)


@given(st.lists(MESSAGES, max_size=6))
def test_what_is_packed_is_unpacked(messages: list[Message]) -> None:
    raw = b"".join(nlmsg.pack(message, message.seq) for message in messages)
    assert len(raw) % 4 == 0
    assert nlmsg.unpack(raw) == messages


@given(ATTRS)
def test_attributes_come_back_in_order(attrs: list[tuple[int, bytes]]) -> None:
    raw = b"".join(nlmsg.attr(kind, value) for kind, value in attrs)
    assert nlmsg.list_attrs(raw) == attrs
    assert nlmsg.parse_attrs(raw) == dict(attrs)
    assert nlmsg.parse_attrs(nlmsg.nested(1, raw))[1] == raw


@given(MESSAGES)
def test_pyroute2_reads_the_same_header(message: Message) -> None:
    peer = PeerMessage(nlmsg.pack(message, message.seq, nlmsg.NLM_F_ACK))
    peer.decode()
    header = peer["header"]
    assert header["length"] == 16 + len(message.body)
    assert header["type"] == message.type
    assert header["flags"] == message.flags | nlmsg.NLM_F_ACK
    assert header["sequence_number"] == message.seq


DECODERS = (
    nlmsg.refusal,
    rtnl.Link.decode,
    rtnl.InterfaceAddress.decode,
    rtnl.Route.decode,
    rtnl.Neighbour.decode,
    rtnl.decode_nsid,
    port.PortVLAN.decode,
)
"""Each decoder and, in the same place below, a message type that it takes."""
TAKES = (nlmsg.NLMSG_ERROR, 16, 20, 24, 28, 88, 16)


def _survives(message: Message) -> None:
    for decode, kind in zip(DECODERS, TAKES, strict=True):
        for tried in (kind, message.type):
            try:
                decode(Message(tried, message.flags, message.body))
            except (ValueError, NetlinkError):
                pass


@given(st.binary(max_size=200))
def test_noise_gives_a_value_or_a_value_error(raw: bytes) -> None:
    try:
        for message in nlmsg.unpack(raw):
            _survives(message)
        nlmsg.list_attrs(raw)
    except ValueError:
        pass


@given(MESSAGES, st.integers(0, 255), ATTRS)
def test_messages_of_noise_give_a_value_or_an_error(
    message: Message, family: int, attrs: list[tuple[int, bytes]]
) -> None:
    raw = b"".join(nlmsg.attr(kind, value) for kind, value in attrs)
    for size in (4, 8, 12, 16):
        body = bytes([family]) + message.body[: size - 1].ljust(size - 1, b"\0") + raw
        _survives(Message(message.type, message.flags, body))


@given(st.integers(-5000, 5000), TYPES, st.binary(max_size=60), ATTRS)
def test_error_reports_of_noise(
    number: int, flags: int, payload: bytes, attrs: list[tuple[int, bytes]]
) -> None:
    tlvs = b"".join(nlmsg.attr(kind, value) for kind, value in attrs)
    request = struct.pack("=IHHII", 16 + len(payload), 16, 5, 1, 0)
    body = struct.pack("=i", number) + request + payload + tlvs
    for kind in (nlmsg.NLMSG_ERROR, nlmsg.NLMSG_DONE):
        try:
            refusal = nlmsg.refusal(Message(kind, flags, body))
        except ValueError:
            continue
        assert (refusal is None) == (number == 0)
        assert refusal is None or str(refusal)

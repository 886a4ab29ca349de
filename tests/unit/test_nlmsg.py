"""The framing of netlink, byte for byte, and what its error reports turn into."""

from __future__ import annotations

import errno
import struct

import pytest

from netlink import nlmsg
from netlink.nlmsg import Message, NetlinkError

# (message, its bytes): both the encoder and the decoder are held against each row
FRAMES = [
    pytest.param(Message(16, 0x5, b"", 1), "10000000 1000 0500 01000000 00000000", id="empty"),
    pytest.param(
        Message(18, 0x301, b"abcd", 7),
        "14000000 1200 0103 07000000 00000000 61626364",
        id="aligned",
    ),
    pytest.param(
        Message(3, 0, b"abcde", 0xFFFFFFFF),
        "15000000 0300 0000 ffffffff 00000000 6162636465 000000",
        id="padded",
    ),
]
ATTRS = [
    pytest.param(4, 1450, "08000400 aa050000", b"\xaa\x05\0\0", id="u32"),
    pytest.param(3, "eth0", "09000300 6574683000 000000", b"eth0\0", id="text"),
    pytest.param(1, b"\x0e\0\0\0\0\1", "0a000100 0e0000000001 0000", b"\x0e\0\0\0\0\1", id="mac"),
    pytest.param(20, b"", "04001400", b"", id="empty"),
]


@pytest.mark.parametrize(("message", "hexed"), FRAMES)
def test_frames_in_both_directions(message: Message, hexed: str) -> None:
    raw = bytes.fromhex(hexed)
    assert nlmsg.pack(message, message.seq) == raw
    assert nlmsg.unpack(raw) == [message]


def test_a_datagram_of_several_messages() -> None:
    raw = b"".join(bytes.fromhex(row.values[1]) for row in FRAMES)  # type: ignore[arg-type]
    assert nlmsg.unpack(raw) == [row.values[0] for row in FRAMES]


def test_the_last_padding_may_be_missing() -> None:
    raw = nlmsg.pack(Message(3, 0, b"abcde"), 1)
    assert nlmsg.unpack(raw[:-3])[0].body == b"abcde"


@pytest.mark.parametrize(("kind", "value", "hexed", "payload"), ATTRS)
def test_attributes_in_both_directions(
    kind: int, value: bytes | str | int, hexed: str, payload: bytes
) -> None:
    raw = nlmsg.attr(kind, value)
    assert raw == bytes.fromhex(hexed)
    assert nlmsg.list_attrs(raw) == [(kind, payload)]


def test_small_integers_and_nesting() -> None:
    raw = nlmsg.nested(18, nlmsg.attr_u8(4, 1), nlmsg.attr_u16(1, 4094))
    assert raw == bytes.fromhex("14001280 05000400 01000000 06000100 fe0f0000")
    inner = nlmsg.parse_attrs(nlmsg.parse_attrs(raw)[18])
    assert {kind: nlmsg.to_int(value) for kind, value in inner.items()} == {4: 1, 1: 4094}


def test_of_repeated_attributes_the_dict_keeps_the_last_and_the_list_all() -> None:
    raw = nlmsg.attr(2, 1) + nlmsg.attr(2, 2)
    assert nlmsg.to_int(nlmsg.parse_attrs(raw)[2]) == 2
    assert len(nlmsg.list_attrs(raw)) == 2


@pytest.mark.parametrize(
    "encode",
    [
        lambda: nlmsg.attr(4, -1),
        lambda: nlmsg.attr(4, 1 << 32),
        lambda: nlmsg.attr(3, "a\0b"),
        lambda: nlmsg.attr(3, bytes(0xFFFF)),
        lambda: nlmsg.attr_u8(4, 256),
        lambda: nlmsg.attr_u16(1, -1),
    ],
)
def test_what_does_not_fit_is_a_value_error(encode: object) -> None:
    with pytest.raises(ValueError, match="netlink attribute"):
        encode()  # type: ignore[operator]


@pytest.mark.parametrize(
    "raw", ["10", "0f000000" + "00" * 12, "11000000" + "00" * 12, "ffffffff" + "00" * 12]
)
def test_broken_frames(raw: str) -> None:
    with pytest.raises(ValueError, match="netlink message"):
        nlmsg.unpack(bytes.fromhex(raw))


@pytest.mark.parametrize("raw", ["00", "03000100", "05000100", "00000000"])
def test_broken_attributes(raw: str) -> None:
    with pytest.raises(ValueError, match="netlink attribute"):
        nlmsg.list_attrs(bytes.fromhex(raw))


def test_text_survives_that_is_no_utf8() -> None:
    name = nlmsg.to_text(b"\xffx\0rest")
    assert nlmsg.attr(3, name) == nlmsg.attr(3, b"\xffx\0")
    assert nlmsg.to_text(None) == ""


def _report(
    number: int, flags: int = 0, payload: bytes = b"", tlvs: bytes = b"", kind: int = 2
) -> Message:
    request = struct.pack("=IHHII", 16 + len(payload), 16, 5, 1, 0)
    return Message(kind, flags, struct.pack("=i", number) + request + payload + tlvs, 1)


def test_an_acknowledgement_is_no_refusal() -> None:
    assert nlmsg.refusal(_report(0, nlmsg.NLM_F_CAPPED)) is None
    assert nlmsg.refusal(Message(nlmsg.NLMSG_DONE, 0, bytes(4))) is None
    assert nlmsg.refusal(Message(nlmsg.NLMSG_DONE, 0, b"")) is None


EXPLAINED = nlmsg.attr(1, "Device does not exist") + nlmsg.attr(2, 32)


@pytest.mark.parametrize(
    ("message", "text", "offset"),
    [
        pytest.param(_report(-19), "", None, id="bare"),
        pytest.param(_report(-19, 0x100), "", None, id="capped"),
        pytest.param(
            _report(-19, 0x300, tlvs=EXPLAINED), "Device does not exist", 32, id="capped, explained"
        ),
        pytest.param(
            _report(-19, 0x200, b"12345\0\0\0", EXPLAINED),
            "Device does not exist",
            32,
            id="whole request, explained",
        ),
        pytest.param(
            Message(3, 0x202, struct.pack("=i", -19) + EXPLAINED),
            "Device does not exist",
            32,
            id="end of a dump",
        ),
    ],
)
def test_refusals(message: Message, text: str, offset: int | None) -> None:
    refusal = nlmsg.refusal(message)
    assert isinstance(refusal, NetlinkError)
    assert isinstance(refusal, OSError)
    assert (refusal.errno, refusal.strerror) == (errno.ENODEV, "No such device")
    assert (refusal.text, refusal.offset, refusal.position, refusal.also) == (text, offset, 0, ())


@pytest.mark.parametrize("message", [_report(1), _report(-4096), Message(2, 0, bytes(19))])
def test_error_reports_that_no_kernel_sends(message: Message) -> None:
    with pytest.raises(ValueError, match="netlink error"):
        nlmsg.refusal(message)


def test_the_words_of_an_error_are_those_of_go() -> None:
    assert str(NetlinkError(errno.EEXIST)) == "file exists"
    assert str(NetlinkError(errno.ERANGE, "too long")) == "numerical result out of range: too long"


def test_messages_are_values() -> None:
    one, same, other = Message(1, 2, b"3", 4), Message(1, 2, b"3", 4), Message(1, 2, b"3", 5)
    assert one == same
    assert hash(one) == hash(same)
    assert one not in (other, "text")
    assert repr(one) == "Message(1, 0x2, b'3', 4)"

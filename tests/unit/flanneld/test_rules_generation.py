"""The kernel's answer to NFT_MSG_GETGEN."""

from __future__ import annotations

import struct

import pytest

from flanneld.rules import generation

NAME = struct.pack("=HH", 12, 3) + b"nft\0\0\0\0\0"
NUMBER = struct.pack("=HH", 8, 1) + (70000).to_bytes(4, "big")


def answer(kind: int, attributes: bytes) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(attributes), kind, 0, 0, 0, 0, 0, 0) + attributes


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (answer(0x0A0F, NUMBER + NAME), 70000),
        (answer(0x0A0F, NAME + NUMBER), 70000),
        (answer(0x0A0F, NAME), None),
        (answer(2, struct.pack("=i", -95) + bytes(16)), None),  # an error: EOPNOTSUPP
    ],
)
def test_the_number_is_found(message: bytes, number: int | None) -> None:
    assert generation.decode(message) == number

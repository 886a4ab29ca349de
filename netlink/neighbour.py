"""Neighbours: their requests and answers. Pure: values to bytes and back.

Knows: ndmsg and its attributes (linux/neighbour.h; rtnetlink(7)). Must not know: sockets, plans,
what an entry is for. Imports struct.
"""

from __future__ import annotations

import struct

from cni.cidr import Address
from netlink import nlmsg
from netlink.inet import AF
from netlink.link import mac_bytes
from netlink.nlmsg import Message, attr, parse_attrs

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_NONE, NUD_REACHABLE, NUD_STALE, NUD_PERMANENT = 0x00, 0x02, 0x04, 0x80

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_GET = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP
_REPLACE = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_CREATE | nlmsg.NLM_F_REPLACE


class Neighbour:
    """An entry of the neighbour table: ``index``, ``address``, ``mac`` or "", ``state`` NUD_*."""

    __slots__ = ("address", "index", "mac", "state")

    def __init__(self, index: int, address: Address, mac: str, state: int) -> None:
        self.index = index
        self.address = address
        self.mac = mac
        self.state = state

    @classmethod
    def decode(cls, message: Message) -> Neighbour:
        """Decode an RTM_NEWNEIGH. ValueError when it is not one of IP."""
        body = message.body
        if message.type != RTM_NEWNEIGH or len(body) < _NDMSG.size:
            raise ValueError(f"netlink message {message.type} is no neighbour")
        _family, index, state, _flags, _type = _NDMSG.unpack_from(body)
        attrs = parse_attrs(body, _NDMSG.size)
        address = Address.from_packed(attrs.get(NDA_DST, b""))
        return cls(index, address, attrs.get(NDA_LLADDR, b"").hex(":"), state)


def replace_neighbour(
    index: int, address: Address, mac: str | None, *, state: int = NUD_REACHABLE
) -> Message:
    """Make or overwrite the neighbour entry of an address; NUD_NONE, without MAC, empties it."""
    body = _neighbour(index, address, state)
    if mac is not None:
        body += attr(NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, _REPLACE, body)


def del_neighbour(index: int, address: Address) -> Message:
    """Forget the neighbour entry of an address."""
    return Message(RTM_DELNEIGH, nlmsg.NLM_F_REQUEST, _neighbour(index, address, 0))


def dump_neighbours(index: int | None = None, family: int = 0) -> Message:
    """Ask for the neighbour entries of one link or all; ``family`` 4, 6 or 0."""
    body = _NDMSG.pack(AF[family], 0, 0, 0, 0)
    if index is not None:
        body += attr(NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, _GET, body)


def _neighbour(index: int, address: Address, state: int) -> bytes:
    return _NDMSG.pack(AF[address.family], index, state, 0, 0) + attr(NDA_DST, address.packed)

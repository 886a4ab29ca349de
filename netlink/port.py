"""VLANs of bridge ports: the requests of ``bridge vlan``. Pure: values to bytes and back.

Knows: the AF_BRIDGE family of the link messages (linux/if_bridge.h, bridge(8)).
Must not know: which VLANs anybody wants. Imports struct.
"""

from __future__ import annotations

import struct

from netlink import nlmsg
from netlink.link import (
    IFINFO,
    IFLA_EXT_MASK,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from netlink.nlmsg import Message, attr, attr_u16, list_attrs, nested

AF_BRIDGE = 7
IFLA_AF_SPEC = 26
IFLA_BRIDGE_FLAGS = 0
IFLA_BRIDGE_VLAN_INFO = 2
BRIDGE_FLAGS_MASTER = 1  # the bridge's table for this port
BRIDGE_FLAGS_SELF = 2  # the device's own: for the bridge itself
BRIDGE_VLAN_INFO_PVID = 2
BRIDGE_VLAN_INFO_UNTAGGED = 4
BRIDGE_VLAN_INFO_RANGE_BEGIN = 8
BRIDGE_VLAN_INFO_RANGE_END = 16
RTEXT_FILTER_BRVLAN_COMPRESSED = 4
VLAN_MAX = 4094

_VLAN_INFO = struct.Struct("=HH")  # flags, vid


class PortVLAN:
    """VLANs ``vid`` to ``vid_end`` of a bridge port, and what is done with their frames.

    ``pvid``: untagged frames that enter belong here; ``untagged``: frames leave without tag.
    """

    __slots__ = ("index", "pvid", "untagged", "vid", "vid_end")

    def __init__(self, index: int, vid: int, vid_end: int, flags: int) -> None:
        self.index = index
        self.vid = vid
        self.vid_end = vid_end
        self.pvid = bool(flags & BRIDGE_VLAN_INFO_PVID)
        self.untagged = bool(flags & BRIDGE_VLAN_INFO_UNTAGGED)

    @classmethod
    def decode(cls, message: Message) -> list[PortVLAN]:
        """Decode one port's RTM_NEWLINK of AF_BRIDGE. ValueError when it is not one."""
        body = message.body
        if message.type != RTM_NEWLINK or len(body) < IFINFO.size:
            raise ValueError(f"netlink message {message.type} is no bridge port")
        index = IFINFO.unpack_from(body)[2]
        spec = nlmsg.parse_attrs(body, IFINFO.size).get(IFLA_AF_SPEC, b"")
        vlans = []
        begin = 0
        for kind, value in list_attrs(spec):
            if kind != IFLA_BRIDGE_VLAN_INFO:
                continue
            if len(value) < _VLAN_INFO.size:
                raise ValueError(f"bridge VLAN entry of {len(value)} bytes")
            flags, vid = _VLAN_INFO.unpack_from(value)
            if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN:
                begin = vid
            else:
                is_end = flags & BRIDGE_VLAN_INFO_RANGE_END
                vlans.append(cls(index, begin if is_end else vid, vid, flags))
        return vlans


def add_port_vlan(
    index: int,
    vid: int,
    *,
    vid_end: int | None = None,
    pvid: bool = False,
    untagged: bool = False,
    self_: bool = False,
) -> Message:
    """Let a port carry ``vid``, or all from ``vid`` to ``vid_end``.

    ``self_`` is for the bridge's own port. Without VLAN filtering in the kernel: EOPNOTSUPP.
    """
    flags = BRIDGE_VLAN_INFO_PVID if pvid else 0
    flags |= BRIDGE_VLAN_INFO_UNTAGGED if untagged else 0
    return _port_vlan(RTM_SETLINK, index, flags, vid, vid_end, self_=self_)


def del_port_vlan(
    index: int, vid: int, *, vid_end: int | None = None, self_: bool = False
) -> Message:
    """Take ``vid``, or all from ``vid`` to ``vid_end``, off a port."""
    return _port_vlan(RTM_DELLINK, index, 0, vid, vid_end, self_=self_)


def dump_port_vlans() -> Message:
    """Ask for the VLANs of every bridge port, as ranges."""
    body = IFINFO.pack(AF_BRIDGE, 0, 0, 0, 0)
    body += attr(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN_COMPRESSED)
    return Message(RTM_GETLINK, nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP, body)


def _port_vlan(
    kind: int, index: int, flags: int, vid: int, vid_end: int | None, *, self_: bool
) -> Message:
    last = vid if vid_end is None else vid_end
    if not 1 <= vid <= last <= VLAN_MAX:
        raise ValueError(f"no VLANs from {vid} to {last}")
    infos = [(flags, vid)]
    if last > vid:
        infos = [
            (flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, vid),
            (flags | BRIDGE_VLAN_INFO_RANGE_END, last),
        ]
    spec = attr_u16(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF if self_ else BRIDGE_FLAGS_MASTER)
    for info in infos:
        spec += attr(IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(*info))
    body = IFINFO.pack(AF_BRIDGE, 0, index, 0, 0) + nested(IFLA_AF_SPEC, spec)
    return Message(kind, nlmsg.NLM_F_REQUEST, body)

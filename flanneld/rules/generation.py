"""Whether the packet filters have changed: whoever has seen them need not look again.

``NFT_MSG_GETGEN`` of nfnetlink (linux/netfilter/nf_tables.h).  The kernel counts every transaction
of nftables in a network namespace, iptables-nft's included; of iptables-legacy see ``legacy``.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from flanneld.rules import legacy

WHOLE_S = 30.0
_NETLINK_NETFILTER = 12
_NEWGEN, _GETGEN = 10 << 8 | 15, 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_...
_NLM_F_REQUEST = 1
_NFTA_GEN_ID = 1
_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_NLATTR = struct.Struct("=HH")  # length, type


def current() -> int | None:
    """Give the number; None where the kernel has no nftables, or does not tell it."""
    length = _NLMSGHDR.size + _NFGENMSG.size
    request = _NLMSGHDR.pack(length, _GETGEN, _NLM_F_REQUEST, 0, 0) + _NFGENMSG.pack(0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as handle:
            handle.sendto(request, (0, 0))
            return decode(handle.recv(4096))
    except OSError:  # then every look is a whole one
        return None


def decode(answer: bytes) -> int | None:
    """Read the number from the kernel's answer; None from an error."""
    length, kind, *_ = _NLMSGHDR.unpack_from(answer)
    at = _NLMSGHDR.size + _NFGENMSG.size
    while kind == _NEWGEN and at + _NLATTR.size <= length:
        size, attribute = _NLATTR.unpack_from(answer, at)
        if attribute == _NFTA_GEN_ID:
            return int.from_bytes(answer[at + _NLATTR.size : at + size], "big")
        at += max(_NLATTR.size, size + 3 & ~3)
    return None


class Watch:
    """Whether any packet filter of this network namespace may have changed.

    nftables counts its changes.  Of iptables-legacy the tables' sizes are looked at each time, and
    their whole content every WHOLE_S: reading that costs more.
    """

    def __init__(self) -> None:
        self._sizes: object = None
        self._content: object = None
        self._until = 0.0

    def token(self) -> object:
        """Give what differs after a change; None where that is not known."""
        number = current()
        if number is None and not Path("/proc/net/ip_tables_names").exists():
            return None
        try:
            sizes = [legacy.sizes(version) for version in (4, 6)]
            if sizes != self._sizes or time.monotonic() >= self._until:
                self._sizes = sizes
                self._content = tuple(legacy.fingerprint(version) for version in (4, 6))
                self._until = time.monotonic() + WHOLE_S
        except (OSError, ValueError):
            return None
        return number, self._content

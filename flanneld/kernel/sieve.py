"""Which messages of rtnetlink wake the daemon: a filter that the kernel runs (classic BPF).

A node's pods make thousands of messages of which none concerns the daemon; each that gets here
costs more than the filter does.  Knows: struct sock_filter (linux/filter.h), and where the headers
of rtnetlink's messages have what is asked.  The kernel sends one message at a time to a group.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING

from flanneld.kernel.entries import RTPROT_FLANNEL, RTPROT_OF_GO
from netlink.inet import RTM_DELROUTE, RTM_NEWROUTE
from netlink.link import RTM_DELLINK, RTM_NEWLINK
from netlink.neighbour import RTM_DELNEIGH, RTM_NEWNEIGH

if TYPE_CHECKING:
    from collections.abc import Iterable

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")  # code, steps if true, steps if false, value
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS | size
_JUMP, _JUMP_IF_EQUAL, _RETURN = 0x05, 0x15, 0x06
_WHOLE = 0xFFFFFFFF
_TYPE, _DST_LEN, _PROTOCOL, _INDEX = 4, 17, 21, 20  # nlmsg_type; rtm_; ifi_, ifa_ and ndm_index
_MOST = 100  # indexes; a jump is of at most 255 steps

_libc = ctypes.CDLL(None, use_errno=True)
Instruction = tuple[int, int, int, int]


def program(
    indexes: Iterable[int], tables: Iterable[int], *, all_links: bool
) -> list[Instruction] | None:
    """Write the filter; None if there are too many links for one.

    Let through are default routes, those of our protocols, what happens to links of ``indexes``,
    neighbours of the links of ``tables`` alone, and with ``all_links`` all links that come or go.
    """
    links, devices = sorted(set(indexes)), sorted(set(tables))
    if len(links) + len(devices) > _MOST:
        return None
    routes = [
        (_LOAD_BYTE, 0, 0, _DST_LEN),
        (_JUMP_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _WHOLE),
        (_LOAD_BYTE, 0, 0, _PROTOCOL),
        *_equal_any((RTPROT_FLANNEL, RTPROT_OF_GO), host=False),
    ]
    code: list[Instruction] = [(_LOAD_HALF, 0, 0, _TYPE)]
    code += _branch((RTM_NEWROUTE, RTM_DELROUTE), routes)
    of_tables = [(_LOAD_WORD, 0, 0, _INDEX), *_equal_any(devices, host=True)]
    code += _branch((RTM_NEWNEIGH, RTM_DELNEIGH), of_tables)
    if all_links:
        code += _branch((RTM_NEWLINK, RTM_DELLINK), [(_RETURN, 0, 0, _WHOLE)])
    return [*code, (_LOAD_WORD, 0, 0, _INDEX), *_equal_any(links, host=True)]


def _equal_any(values: Iterable[int], *, host: bool) -> list[Instruction]:
    """Let a message through if what was loaded is one of some values, else drop it.

    ``host``: the field is in the host's order of bytes, and a load reads it in the network's.
    """
    listed = [socket.htonl(value) if host else value for value in values]
    tests = [(_JUMP_IF_EQUAL, len(listed) - at, 0, value) for at, value in enumerate(listed)]
    return [*tests, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE)]


def _branch(types: tuple[int, int], then: list[Instruction]) -> list[Instruction]:
    """Do something with messages of two types; the others go on behind it."""
    one, other = map(socket.htons, types)
    head = [
        (_JUMP_IF_EQUAL, 2, 0, one),
        (_JUMP_IF_EQUAL, 1, 0, other),
        (_JUMP, 0, 0, len(then)),
    ]
    return [*head, *then]


def attach(fileno: int, instructions: Iterable[Instruction]) -> None:
    """Make the kernel filter what a socket gets from now on; OSError."""
    code = b"".join(_INSTRUCTION.pack(*one) for one in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    number = len(code) // _INSTRUCTION.size
    filter_ = struct.pack("@HP", number, ctypes.addressof(buffer))  # struct sock_fprog
    if _libc.setsockopt(fileno, socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_, len(filter_)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "SO_ATTACH_FILTER")

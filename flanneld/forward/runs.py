"""Packets that one system call can send: to one node, of one length but for the last.  Pure.

UDP_SEGMENT (udp(7)) parts what it is given into datagrams of one length; the last may be shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST = 65507  # bytes of payload that one call takes: an IPv4 datagram's
_MOST = 64  # segments that every kernel takes (UDP_MAX_SEGMENTS before it was raised)


class Run(NamedTuple):
    """Packets ``start`` to ``end`` (without), for ``node``; ``length`` is the first one's."""

    start: int
    end: int
    node: str
    length: int


def most(length: int) -> int:
    """Give how many packets of a length one call can send; at least one."""
    return max(1, min(_MOST, _LONGEST // max(1, length)))


def runs(lengths: Sequence[int], nodes: Sequence[str | None]) -> Iterator[Run]:
    """Part packets into runs, in their order; those without a node are left out."""
    count = len(lengths)
    start = 0
    while start < count:
        node, length = nodes[start], lengths[start]
        if node is None:
            start += 1
            continue
        limit = min(count, start + most(length))
        end = start + 1
        while end < limit and nodes[end] == node and lengths[end] == length:
            end += 1
        if end < limit and nodes[end] == node and lengths[end] < length:
            end += 1
        yield Run(start, end, node, length)
        start = end

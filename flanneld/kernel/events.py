"""What changes in the kernel, as a call that says: compare again.

Knows: the groups of rtnetlink (rtnetlink(7)), and which of their messages can concern the daemon:
a node's pods come and go on other links, its neighbours all the time. Must not know: what is
desired. A message that was lost counts as one that concerns.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.kernel import sieve
from flanneld.kernel.entries import RTPROT_FLANNEL, RTPROT_OF_GO
from netlink import events
from netlink.inet import RTM_DELROUTE, RTM_NEWROUTE
from netlink.link import RTM_DELLINK, RTM_NEWLINK, Link
from netlink.neighbour import RTM_DELNEIGH, RTM_NEWNEIGH

if TYPE_CHECKING:
    from collections.abc import Callable

    from netlink.nlmsg import Message

_log = logging.getLogger(__name__)

RTMGRP_NEIGH = 0x4
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV6_ROUTE = 0x400

GROUPS = (
    events.RTMGRP_LINK
    | RTMGRP_NEIGH
    | RTMGRP_IPV4_IFADDR
    | events.RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV6_ROUTE
)
_READS = 64  # at a time, then it is the turn of the loop's other tasks
_TOGETHER_S = 0.02  # what one command of ip(8) or one link causes comes as one


@dataclass(frozen=True, slots=True)
class Watched:
    """The links that matter: by ifindex those that are there, by name those that may come.

    ``tables`` are those whose neighbours are the daemon's: an uplink's come and go all the time.
    """

    indexes: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    tables: frozenset[int] = frozenset()

    def concerns(self, message: Message) -> bool:
        """Whether a change of the kernel can be one of what the daemon programs, or stands on."""
        body = message.body
        if message.type in {RTM_NEWROUTE, RTM_DELROUTE}:
            # rtm_dst_len, rtm_protocol
            return not body[1] or body[5] in {RTPROT_FLANNEL, RTPROT_OF_GO}
        index = int.from_bytes(body[4:8], sys.byteorder)  # ifi_, ifa_, ndm_index
        if message.type in {RTM_NEWNEIGH, RTM_DELNEIGH}:
            return index in self.tables
        if index in self.indexes:
            return True
        return (
            bool(self.names)
            and message.type in {RTM_NEWLINK, RTM_DELLINK}
            and Link.decode(message).name in self.names
        )


class Events:
    """Calls ``changed`` in the running loop soon after changes that concern what is watched.

    Until ``watch`` says what that is, every change does.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._watched: Watched | None = None
        self._source: events.Events | None = None
        self._pending: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Subscribe. OSError."""
        self._source = events.Events(GROUPS)
        asyncio.get_running_loop().add_reader(self._source.fileno(), self._read)

    def watch(self, watched: Watched) -> None:
        """Hear of these from now on, and of nothing else if the kernel can filter.

        What has changed since they were found out is heard of too: the next comparison is due.
        """
        if watched == self._watched or self._source is None:
            return
        self._watched = watched
        program = sieve.program(watched.indexes, watched.tables, all_links=bool(watched.names))
        if program is not None:
            try:
                sieve.attach(self._source.fileno(), program)
            except OSError as error:
                _log.warning("every change of the kernel is looked at: %s", error)
        self._fire_soon()

    def close(self) -> None:
        """End the subscription; ``changed`` is not called after this."""
        if self._pending is not None:
            self._pending.cancel()
        if self._source is not None:
            asyncio.get_running_loop().remove_reader(self._source.fileno())
            self._source.close()
            self._source = None

    def _read(self) -> None:
        for _ in range(_READS):
            try:
                messages = self._source.wait(0) if self._source is not None else []
            except OSError:  # ENOBUFS: some were lost
                self._fire_soon()
                return
            if not messages:
                return
            watched = self._watched
            if self._pending is None and (watched is None or any(map(watched.concerns, messages))):
                self._fire_soon()

    def _fire_soon(self) -> None:
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.call_later(_TOGETHER_S, self._fire)

    def _fire(self) -> None:
        self._pending = None
        self._changed()

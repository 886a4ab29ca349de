"""What the kernel tells of changes in a network namespace: multicast groups of rtnetlink(7).

Knows: subscriptions (netlink(7), linux/rtnetlink.h). Must not know: what a message means
(``rtnl``). A reader here may wait, unlike one of ``handle``. Imports errno, time, cni.native.
"""

from __future__ import annotations

import errno
import time

from netlink import netns, nlmsg
from netlink.handle import BUFFER, SOL_NETLINK, open_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from netlink.nlmsg import Message

RTMGRP_LINK = 0x1
RTMGRP_IPV6_IFADDR = 0x100

_RTNLGRP_LINK = 1  # the same group by number
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_DROP_MEMBERSHIP = 2


class Events:
    """What changes in a namespace, from the moment this is made."""

    __slots__ = ("_socket",)

    def __init__(self, group: int, netns_fd: int | None = None) -> None:
        """Subscribe to RTMGRP_* in the namespace ``netns_fd``, or in the thread's own."""
        if netns_fd is None:
            self._socket = open_socket()
        else:
            with netns.entered(netns_fd):
                self._socket = open_socket()
        self._socket.bind((0, group))

    def hear_links(self, *, on: bool) -> None:
        """Start or stop hearing of links; OSError."""
        option = _NETLINK_ADD_MEMBERSHIP if on else _NETLINK_DROP_MEMBERSHIP
        self._socket.setsockopt(SOL_NETLINK, option, _RTNLGRP_LINK)

    def wait(self, timeout_s: float | None) -> list[Message]:
        """Wait for the next ones; none when there were none in time. OSError if some were lost."""
        self._socket.settimeout(timeout_s)
        try:
            return nlmsg.unpack(self._socket.recv(BUFFER))
        except (TimeoutError, BlockingIOError):  # the latter if the time is 0
            return []

    def stirred(self, timeout_s: float) -> bool:
        """Wait for any change; False when there was none in time. Lost ones were changes, too."""
        try:
            return bool(self.wait(timeout_s))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return True

    def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds, looked at now and after each change; False if not in time."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            left = deadline - time.monotonic()
            if left <= 0 or not self.stirred(left):
                return False
        return True

    def fileno(self) -> int:
        """Descriptor, for poll(2)."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

"""Deleting many links for the price of one.

A request that deletes a link returns after the kernel's wait for RCU (11 to 20 ms, netdev_run_todo
in net/core/dev.c), however many links it is about.  So links are put into a group of their own
(IFLA_GROUP), and the group is deleted.  All requests go in one send, up to ``handle.BATCH``: who is
killed between two sends leaves links in that group, which are otherwise as they were.

Knows: groups.  Must not know: whose links they are, and why they go.
Imports os.
"""

from __future__ import annotations

import os

from netlink import rtnl
from netlink.nlmsg import GONE, NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlink.handle import Handle
    from netlink.nlmsg import Message

_ATTEMPTS = 16


class Deletion:
    """One link by ifindex, ``before`` it other removals; ``error`` is what the kernel refused.

    What is gone already is no error.
    """

    __slots__ = ("before", "error", "index")

    def __init__(self, index: int, before: Sequence[Message] = ()) -> None:
        self.index = index
        self.before = before
        self.error: NetlinkError | None = None


def delete(handle: Handle, deletions: Sequence[Deletion]) -> None:
    """Carry them all out, and note in each what was refused.  OSError: unknown what was done."""
    group = free_group(handle) if len(deletions) > 1 else 0
    if not group:
        _one_by_one(handle, deletions)
        return
    requests = [
        (deletion, message)
        for deletion in deletions
        for message in (*deletion.before, rtnl.set_link(deletion.index, group=group))
    ]
    refusals = _execute(handle, [*(message for _, message in requests), rtnl.del_group(group)])
    whole = refusals.pop(len(requests), None)
    for position, refusal in refusals.items():
        requests[position][0].error = refusal
    if whole is not None:  # a link among them that cannot be deleted keeps all of them
        _one_by_one(handle, [Deletion(one.index) for one in deletions], deletions)


def free_group(handle: Handle) -> int:
    """A number of a group that no link is in; 0 if none was found."""
    taken = {rtnl.group_of(message) for message in handle.dump(rtnl.dump_links())}
    for _ in range(_ATTEMPTS):
        # far from the small numbers that people choose
        group = int.from_bytes(os.urandom(4), "little") & 0x3FFFFFFF | 0x40000000
        if group not in taken:
            return group
    return 0


def _one_by_one(
    handle: Handle, deletions: Sequence[Deletion], tell: Sequence[Deletion] | None = None
) -> None:
    requests = [
        (number, message)
        for number, deletion in enumerate(deletions)
        for message in (*deletion.before, rtnl.del_link(deletion.index))
    ]
    for position, refusal in _execute(handle, [message for _, message in requests]).items():
        (tell or deletions)[requests[position][0]].error = refusal


def _execute(handle: Handle, messages: Sequence[Message]) -> dict[int, NetlinkError]:
    """Send them; the refusals by place, without those of what is gone."""
    try:
        handle.execute(*messages)
    except NetlinkError as error:
        refusals = (error, *error.also)
        return {one.position: one for one in refusals if one.errno not in GONE}
    return {}

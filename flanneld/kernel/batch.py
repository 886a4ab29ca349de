"""Many requests, each with its own outcome: one that is refused holds up none of the others.

The loop of the daemon runs between two batches, so that 15,000 requests do not keep it from
answering. Nothing here is tried again: what was refused is seen by the next comparison.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from netlink.handle import BATCH
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlink.handle import Handle
    from netlink.nlmsg import Message

Subject = TypeVar("Subject")

GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
"""How the kernel answers, by kind of object, that what is to be deleted is not there."""


@dataclass(frozen=True, slots=True)
class Request(Generic[Subject]):
    """A message, and what it is for; ``forgiven`` are the errors that count as success."""

    message: Message
    subject: Subject
    forgiven: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal(Generic[Subject]):
    """What was asked for, and the kernel's answer."""

    subject: Subject
    error: NetlinkError


async def execute(handle: Handle, requests: Sequence[Request[Subject]]) -> list[Refusal[Subject]]:
    """Send all; give the refused ones. OSError if the answers to a batch are lost."""
    refused: list[Refusal[Subject]] = []
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        try:
            handle.execute(*(request.message for request in batch))
        except NetlinkError as error:
            if error.errno in {errno.ENOBUFS, errno.EPROTO} and not error.also:
                raise
            for one in (error, *error.also):
                request = batch[one.position]
                if one.errno not in request.forgiven:
                    refused.append(Refusal(request.subject, one))
        await asyncio.sleep(0)  # the loop's turn
    return refused

"""Requests in batches: every refusal is told, and answers that were lost are no success."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from flanneld.kernel import batch
from flanneld.kernel.batch import Request
from netlink import rtnl
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import FakeHandle

REQUESTS = [Request(rtnl.del_link(index), index) for index in (7, 8, 9)]


def refusals(handle: Any) -> list[int]:
    return [one.subject for one in asyncio.run(batch.execute(handle, REQUESTS))]


def test_every_refusal_is_told() -> None:
    handle = FakeHandle()
    handle.refusal = lambda message: 0 if message == rtnl.del_link(8) else errno.EPERM
    assert refusals(handle) == [7, 9]


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPROTO])
def test_answers_that_were_lost_are_an_error(number: int) -> None:
    class Deaf(FakeHandle):
        def execute(self, *_: object) -> None:
            raise NetlinkError(number)

    with pytest.raises(NetlinkError) as caught:
        refusals(Deaf())
    assert caught.value.errno == number

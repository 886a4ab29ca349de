"""Deleting a device: what the kernel's refusal means."""

from __future__ import annotations

import errno

import pytest

from flanneld.kernel import devices
from netlink import rtnl
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import FakeHandle


def test_a_device_that_has_gone_meanwhile_is_deleted() -> None:
    handle = FakeHandle()
    handle.refusal = lambda _: errno.ENODEV
    devices._delete(handle, 7)  # type: ignore[arg-type]


def test_a_device_that_cannot_be_deleted_is_told() -> None:
    handle = FakeHandle()
    handle.refusal = lambda message: errno.EBUSY if message == rtnl.del_link(7) else 0
    with pytest.raises(NetlinkError) as caught:
        devices._delete(handle, 7)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EBUSY

"""Deleting links as a group: all of them, none of others', and what is refused or gone then."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from cni.cidr import parse_address, parse_prefix
from netlink import bulk, rtnl
from netlink.bulk import Deletion
from netlink.handle import BATCH, Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import needs_root, private

if TYPE_CHECKING:
    from netlink.nlmsg import Message

pytestmark = [pytest.mark.kernel, needs_root]

MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def make_pairs(handle: Handle, count: int) -> list[int]:
    """Make veth pairs v0-p0, v1-p1, ...; the ifindexes of the first ends."""
    for n in range(count):
        handle.execute(rtnl.new_veth(f"v{n}", mac=MAC, peer_name=f"p{n}", peer_mac=PEER_MAC))
    return [index_of(handle, f"v{n}") for n in range(count)]


def index_of(handle: Handle, name: str) -> int:
    link = handle.get_link(name)
    assert link is not None
    return link.index


def names(handle: Handle) -> set[str]:
    return {link.name for link in handle.links()} - {"lo"}


@private
def test_all_that_are_given_go_and_no_other() -> None:
    with Handle() as handle:
        indexes = make_pairs(handle, BATCH + 5)
        deletions = [Deletion(index) for index in indexes[:-2]]
        bulk.delete(handle, deletions)
        assert [one.error for one in deletions] == [None] * len(deletions)
        left = {f"{end}{n}" for n in (BATCH + 3, BATCH + 4) for end in "vp"}
        assert names(handle) == left
        assert {link.group for link in handle.links()} == {0}


@private
def test_what_goes_before_a_link_goes_with_it() -> None:
    with Handle() as handle:
        handle.execute(rtnl.new_bridge("cni0", mac=MAC))
        bridge = index_of(handle, "cni0")
        addresses = [parse_address(f"10.0.0.{n}") for n in (2, 3, 4)]
        handle.execute(*(rtnl.replace_neighbour(bridge, one, mac=PEER_MAC) for one in addresses))
        indexes = make_pairs(handle, 2)
        bulk.delete(
            handle,
            [
                Deletion(index, [rtnl.del_neighbour(bridge, address)])
                for index, address in zip(indexes, addresses, strict=False)
            ],
        )
        known = {entry.address for entry in handle.neighbours(bridge, 4)}
        assert known.intersection(addresses) == {addresses[2]}
        assert names(handle) == {"cni0"}


@private
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_gone_is_no_error(count: int) -> None:
    with Handle() as handle:
        deletions = [Deletion(index) for index in make_pairs(handle, count)]
        handle.execute(rtnl.del_link("v0"))
        bulk.delete(handle, deletions)
        bulk.delete(handle, deletions)
        assert [one.error for one in deletions] == [None] * count
        assert names(handle) == set()


@private
def test_one_that_cannot_be_deleted_keeps_no_other() -> None:
    """The loopback device has no deletion: with it in the group, the kernel refuses all."""
    with Handle() as handle:
        first, second = make_pairs(handle, 2)
        deletions = [Deletion(first), Deletion(index_of(handle, "lo")), Deletion(second)]
        bulk.delete(handle, deletions)
        refused = deletions.pop(1).error
        assert refused is not None
        assert refused.errno == errno.EOPNOTSUPP
        assert [one.error for one in deletions] == [None, None]
        assert names(handle) == set()


@private
def test_a_group_that_somebody_uses_is_not_taken() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        make_pairs(handle, 3)
        numbers = iter([b"\1\0\0\0", b"\1\0\0\0", b"\2\0\0\0"])
        patch.setattr(os, "urandom", lambda _: next(numbers))
        handle.execute(rtnl.set_link("v2", group=0x40000001))
        assert bulk.free_group(handle) == 0x40000002
        assert names(handle) == {"v0", "p0", "v1", "p1", "v2", "p2"}


@private
def test_without_a_free_group_they_go_one_by_one() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        deletions = [Deletion(index) for index in make_pairs(handle, 3)]
        patch.setattr(bulk, "free_group", lambda _: 0)
        bulk.delete(handle, deletions)
        assert names(handle) == set()


@private
def test_the_group_of_everybody_is_never_deleted() -> None:
    with Handle() as handle:
        make_pairs(handle, 1)
        with pytest.raises(ValueError, match="group 0"):
            rtnl.del_group(0)
        assert names(handle) == {"v0", "p0"}


@private
def test_a_group_without_links_is_answered_as_gone() -> None:
    request: Message = rtnl.del_group(0x40000001)
    with Handle() as handle, pytest.raises(NetlinkError) as caught:
        handle.execute(request)
    assert caught.value.errno == errno.ENODEV


@private
def test_a_refusal_is_that_of_its_link() -> None:
    """The kernel does not delete `lo`, and an address that is gone already is no failure."""
    with Handle() as handle:
        (index,) = make_pairs(handle, 1)
        gone = rtnl.del_address(index, parse_prefix("10.0.0.9/24"))
        deletions = [Deletion(index, [gone]), Deletion(1)]
        bulk.delete(handle, deletions)
        assert deletions[0].error is None
        assert deletions[1].error is not None
        assert names(handle) == set()


@private
def test_a_refusal_of_what_goes_before_is_that_of_its_link() -> None:
    with Handle() as handle:
        first, second = make_pairs(handle, 2)
        refused = rtnl.set_link(second, master=1)  # `lo` is no bridge
        deletions = [Deletion(first), Deletion(second, [refused])]
        bulk.delete(handle, deletions)
        assert [one.error is None for one in deletions] == [True, False]
        assert names(handle) == set()

"""The resident process deletes for many calls at once, and tells each about its own link."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest

from cni_flannel.kernel import bulk
from cni_flannel.resident.deleter import Deleter
from netlink import rtnl
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import needs_root, private
from tests.kernel.test_bulk import make_pairs, names

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.kernel, needs_root]


class Batches:
    """Notes the size of each batch, and can hold the first one up."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.arrived = threading.Event()
        self.go_on = threading.Event()
        self._delete = bulk.delete
        patch.setattr(bulk, "delete", self)

    def __call__(self, handle: Handle, deletions: Sequence[bulk.Deletion]) -> None:
        self.sizes.append(len(deletions))
        self.arrived.set()
        assert self.go_on.wait(20)
        self._delete(handle, deletions)


def started() -> Deleter:
    deleter = Deleter()
    deleter.start()
    return deleter


def delete_all(deleter: Deleter, indexes: list[int]) -> tuple[list[threading.Thread], list[bool]]:
    """Ask for each in a thread of its own; whether each was gone when its caller went on."""
    gone: list[bool] = []

    def ask(index: int) -> None:
        deleter.delete(index, ())
        with Handle() as own:
            gone.append(own.get_link(index) is None)

    threads = [threading.Thread(target=ask, args=(index,)) for index in indexes]
    for thread in threads:
        thread.start()
    return threads, gone


@private
def test_each_caller_goes_on_when_its_link_is_gone() -> None:
    with Handle() as handle:
        deleter = started()
        for _ in range(3):
            threads, gone = delete_all(deleter, make_pairs(handle, 20))
            for thread in threads:
                thread.join(20)
            assert gone == [True] * 20
        assert names(handle) == set()


@private
def test_what_comes_meanwhile_is_the_next_batch() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        indexes = make_pairs(handle, 10)
        batches = Batches(patch)
        deleter = started()
        first, _ = delete_all(deleter, indexes[:1])
        assert batches.arrived.wait(20)
        rest, gone = delete_all(deleter, indexes[1:])
        while len(deleter._pending) < len(rest):
            rest[0].join(0.01)
        batches.go_on.set()
        for thread in (*first, *rest):
            thread.join(20)
        assert batches.sizes == [1, 9]
        assert gone == [True] * 9


@private
def test_two_calls_for_one_link_are_both_told() -> None:
    with Handle() as handle:
        (index,) = make_pairs(handle, 1)
        threads, gone = delete_all(started(), [index] * 8)
        for thread in threads:
            thread.join(20)
        assert gone == [True] * 8


@private
def test_what_is_refused_is_told_to_its_caller_alone() -> None:
    with Handle() as handle:
        deleter = started()
        (index,) = make_pairs(handle, 1)
        with pytest.raises(NetlinkError) as caught:
            deleter.delete(1, [rtnl.set_link("lo", alias="asked")])
        assert caught.value.errno == errno.EOPNOTSUPP
        deleter.delete(index, ())
        assert names(handle) == set()


@private
def test_a_failure_of_the_whole_batch_ends_no_later_one() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        deleter = started()
        (index,) = make_pairs(handle, 1)

        def fail(*_: object) -> None:
            raise MemoryError

        with patch.context() as inner:
            inner.setattr(bulk, "delete", fail)
            with pytest.raises(MemoryError):
                deleter.delete(index, ())
        deleter.delete(index, ())
        assert names(handle) == set()

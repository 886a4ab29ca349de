"""The resident process deletes for many calls at once, and tells each about its own link."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cni_flannel.resident import deleter
from cni_flannel.resident.deleter import Deleter
from netlink import bulk, rtnl
from netlink.events import Events
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import needs_root, private
from tests.kernel.test_bulk import make_pairs, names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netlink.nlmsg import Message

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
    made = Deleter()
    made.start()
    return made


def delete_all(running: Deleter, indexes: list[int]) -> tuple[list[threading.Thread], list[bool]]:
    """Ask for each in a thread of its own; whether each was gone when its caller went on."""
    gone: list[bool] = []

    def ask(index: int) -> None:
        running.delete(index, ())
        with Handle() as own:
            gone.append(own.get_link(index) is None)

    threads = [threading.Thread(target=ask, args=(index,)) for index in indexes]
    for thread in threads:
        thread.start()
    return threads, gone


@private
def test_each_caller_goes_on_when_its_link_is_gone() -> None:
    with Handle() as handle:
        running = started()
        for _ in range(3):
            threads, gone = delete_all(running, make_pairs(handle, 20))
            for thread in threads:
                thread.join(20)
            assert gone == [True] * 20
        assert names(handle) == set()


@private
def test_what_comes_meanwhile_is_the_next_batch() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        indexes = make_pairs(handle, 10)
        batches = Batches(patch)
        running = started()
        first, _ = delete_all(running, indexes[:1])
        assert batches.arrived.wait(20)
        rest, gone = delete_all(running, indexes[1:])
        while len(running._pending) < len(rest):
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
        running = started()
        (index,) = make_pairs(handle, 1)
        with pytest.raises(NetlinkError) as caught:
            running.delete(1, [rtnl.set_link("lo", alias="asked")])
        assert caught.value.errno == errno.EOPNOTSUPP
        running.delete(index, ())
        assert names(handle) == set()


@private
def test_a_failure_of_the_whole_batch_ends_no_later_one() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        running = started()
        (index,) = make_pairs(handle, 1)

        def fail(*_: object) -> None:
            raise MemoryError

        with patch.context() as inner:
            inner.setattr(bulk, "delete", fail)
            with pytest.raises(MemoryError):
                running.delete(index, ())
        running.delete(index, ())
        assert names(handle) == set()


@private
def test_no_socket_to_delete_with_fails_one_batch_alone() -> None:
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        indexes = make_pairs(handle, 2)
        running = started()

        def refuse() -> Handle:
            raise OSError(errno.EMFILE, "too many open files")

        with patch.context() as inner:
            inner.setattr(deleter, "Handle", refuse)
            with pytest.raises(OSError, match="too many open files"):
                running.delete(indexes[0], ())
        for index in indexes:
            running.delete(index, ())
        assert names(handle) == set()


@private
def test_events_that_were_lost_keep_nobody_waiting() -> None:
    """The kernel says ENOBUFS instead of which link is gone: the end of the batch tells it."""
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Events, "wait", lose(Events.wait))
        running = started()
        for _ in range(2):
            threads, gone = delete_all(running, make_pairs(handle, 5))
            for thread in threads:
                thread.join(20)
            assert gone == [True] * 5
        assert names(handle) == set()


def lose(wait: Callable[[Events, float | None], list[Message]]) -> Any:
    """Wait, and lose what comes."""

    def losing(events: Events, timeout_s: float | None) -> list[Message]:
        wait(events, timeout_s)
        raise OSError(errno.ENOBUFS, "no buffer space available")

    return losing


@private
def test_without_its_threads_a_call_deletes_by_itself() -> None:
    """Whatever has become of them: no DEL depends on what another call waits for."""
    with Handle() as handle, pytest.MonkeyPatch.context() as patch:
        patch.setattr(deleter, "PATIENCE_S", 0.05)
        (index,) = make_pairs(handle, 1)
        Deleter().delete(index, ())
        assert names(handle) == set()
        with pytest.raises(NetlinkError) as caught:
            Deleter().delete(1, [rtnl.set_link("lo", alias="asked")])
        assert caught.value.errno == errno.EOPNOTSUPP

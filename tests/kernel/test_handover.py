"""Deleting a link in a child: gone when we go on, errors passed on, nothing left of the child."""

from __future__ import annotations

import errno
import functools
import os
from typing import TYPE_CHECKING

import pytest

from cni_flannel.kernel import handover
from netlink import events, rtnl
from netlink.events import Events
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import private, sh

if TYPE_CHECKING:
    from netlink.nlmsg import Message

ROUNDS = 20


def make_pair(host: Handle) -> int:
    ours, its = "02:00:00:00:00:01", "02:00:00:00:00:02"
    host.execute(rtnl.new_veth("vethx", mac=ours, peer_name="peer", peer_mac=its))
    link = host.get_link("vethx")
    assert link is not None
    return link.index


def delete(index: int) -> None:
    with Handle() as own:
        own.execute(rtnl.del_link(index))


def reap_all() -> None:
    """Wait for every child, so that the next test has none."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


@private
def test_both_ends_are_gone_when_it_returns() -> None:
    with Handle() as host:
        for _ in range(ROUNDS):
            index = make_pair(host)
            handover.run(functools.partial(delete, index), index)
            assert host.get_link("vethx") is None
            assert host.get_link("peer") is None
            assert {link.name for link in host.links()} == {"lo"}
    reap_all()


@private
def test_an_error_is_passed_on() -> None:
    with pytest.raises(NetlinkError) as caught:
        handover.run(functools.partial(delete, 4711), 4711)
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@private
def test_work_that_deletes_nothing_is_waited_for_and_has_nothing_of_ours_open() -> None:
    """What the child kept open would keep its maker's answer, and the pod's mount, waiting."""
    note, above = os.memfd_create("note"), os.dup2(0, 200)
    path = f"/proc/{os.getpid()}/fd/{note}"

    def work() -> None:
        targets = [f"{name} {os.readlink(f'/proc/self/fd/{name}')}" for name in ours()]
        own = os.open(path, os.O_WRONLY)
        os.write(own, "\n".join(targets).encode())
        os.close(own)

    def ours() -> list[str]:
        names = os.listdir("/proc/self/fd")
        return [name for name in names if os.path.exists(f"/proc/self/fd/{name}")]

    handover.run(work, 4711)
    left = os.pread(note, 4096, 0).decode().splitlines()
    assert len(left) == 1, left
    assert "pipe:" in left[0]
    os.close(above)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@private
def test_events_that_were_lost_are_not_asked_for_again() -> None:
    """The kernel says ENOBUFS instead of which link is gone: the child's end tells it."""
    asked = []

    def lose(_: Events, timeout_s: float | None) -> list[Message]:
        asked.append(timeout_s)
        raise OSError(errno.ENOBUFS, "no buffer space available")

    with Handle() as host, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Events, "wait", lose)
        index = make_pair(host)
        handover.run(functools.partial(delete, index), index)
        assert host.get_link("vethx") is None
    assert len(asked) == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@private
def test_without_a_child_the_work_is_done_here() -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    with Handle() as host, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        index = make_pair(host)
        handover.run(functools.partial(delete, index), index)
        assert host.get_link("vethx") is None


@private
def test_without_descriptors_the_work_is_done_here() -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Handle() as host:
        for where, name in ((events, "Events"), (os, "pipe2")):
            index = make_pair(host)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(where, name, refuse)
                handover.run(functools.partial(delete, index), index)
            assert host.get_link("vethx") is None


@private
def test_the_end_of_another_link_is_not_taken_for_it() -> None:
    def work(index: int) -> None:
        sh("ip link add other type bridge; ip link del other; sleep 0.3")
        delete(index)

    with Handle() as host:
        index = make_pair(host)
        handover.run(functools.partial(work, index), index)
        assert host.get_link("vethx") is None
    reap_all()

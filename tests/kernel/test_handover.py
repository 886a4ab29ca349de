"""Deleting a link in a child: gone when we go on, errors passed on, nothing left of the child."""

from __future__ import annotations

import errno
import functools
import os

import pytest

from cni_flannel.kernel import handover
from netlink import rtnl
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import private

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
def test_work_that_deletes_nothing_is_waited_for_and_has_no_standard_streams() -> None:
    note = os.memfd_create("note")

    def work() -> None:
        os.write(note, " ".join(os.listdir("/proc/self/fd")).encode())

    handover.run(work, 4711)
    open_in_child = os.pread(note, 4096, 0).decode().split()
    assert str(note) in open_in_child
    # The listing itself takes the lowest free number: one of the three at the most.
    assert len({"0", "1", "2"} & set(open_in_child)) <= 1
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

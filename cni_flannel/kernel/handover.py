"""Deleting a link without waiting for what the kernel does afterwards.

A request that deletes a veth returns after 12 to 20 ms: the link is out of all lists and
RTM_DELLINK is sent after one, the rest is the wait for RCU until its memory can be freed
(netdev_run_todo, net/core/dev.c).  So a child makes the request, and we go on when the kernel
tells everybody that the link is gone.  The child does nothing else; it ends by itself, adopted
by init or by the runtime, as the processes of containers do.

Knows: fork(2), pipe(2), RTM_DELLINK of ``events``.  Must not know: which link, and why.
Imports errno, os, cni.native; select when called.
"""

from __future__ import annotations

import errno
import os

from cni.native import Held
from netlink import events, rtnl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run(work: Callable[[], object], index: int) -> None:
    """Do ``work``, which deletes link ``index``, until that is gone.  OSError as ``work``'s.

    ``work`` opens its own handle: what it shares with us it shares with another process.

    Where no child can be had, ``work`` is done here, all of it.
    """
    try:
        heard = events.Events(events.RTMGRP_LINK)
        answer, answer_of_child = os.pipe2(os.O_CLOEXEC)
    except OSError:
        work()
        return
    with Held():
        pid = _fork()
        if pid == 0:
            _be_the_child(work, answer_of_child)
    os.close(answer_of_child)
    try:
        if pid < 0:
            work()
        elif not _is_gone(heard, index, answer):
            _finish(pid, answer)
    finally:
        os.close(answer)
        heard.close()


def _fork() -> int:
    """The child's process, 0 in the child, -1 if there can be none."""
    try:
        return os.fork()
    except OSError:
        return -1


def _be_the_child(work: Callable[[], object], answer: int) -> None:
    """Do the work and end, whatever happens; an error is written as number and text."""
    try:
        _close_all_but(answer)
        work()
    except OSError as error:
        os.write(answer, f"{error.errno or errno.EIO} {getattr(error, 'text', '')}".encode())
    finally:
        os._exit(0)  # noqa: TID251 - not through the parent's way out


def _close_all_but(kept: int) -> None:
    """The runtime waits for its pipes and unmounts the namespace, while the child lives on."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd != kept:
            os.closerange(fd, fd + 1)  # of the listing's own, too, which is closed already


def _is_gone(heard: events.Events, index: int, answer: int) -> bool:
    """Wait for the link's end (True), or the child's (False), whichever comes first."""
    import select  # only here

    poll = select.poll()
    poll.register(heard.fileno(), select.POLLIN)
    poll.register(answer, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if heard.fileno() in ready:
            try:
                if any(rtnl.end_of(message) == index for message in heard.wait(0)):
                    return True
            except OSError:  # some were lost, perhaps this one
                poll.unregister(heard.fileno())
        if answer in ready:
            return False


def _finish(pid: int, answer: int) -> None:
    """Reap a child that has ended, and pass its error on."""
    said = os.read(answer, 4096).decode("utf-8", "replace")
    os.waitpid(pid, 0)
    if said:
        number, _, text = said.partition(" ")
        raise NetlinkError(int(number), text)

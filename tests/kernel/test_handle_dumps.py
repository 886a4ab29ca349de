"""Dumps that are torn, too big, refused or left alone, and answers that are not ours."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest

from netlink import netns, nlmsg, rtnl
from netlink.handle import DUMP_ATTEMPTS, Handle
from netlink.nlmsg import Message, NetlinkError
from tests.kernel.privatens import needs_root, new_pod, private

pytestmark = [pytest.mark.kernel, needs_root]

MAC = "0e:00:00:00:00:01"


@private
def test_a_dump_of_many_links_while_they_come_and_go() -> None:
    with Handle() as handle:
        handle.execute(*(rtnl.new_bridge(f"b{n}", mac=MAC) for n in range(60)))
        stop = threading.Event()

        def churn() -> None:
            with Handle() as other:
                while not stop.is_set():
                    other.execute(rtnl.new_bridge("churn", mac=MAC))
                    other.execute(rtnl.del_link("churn"))

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(20):
                names = {link.name for link in handle.links()}
                assert {f"b{n}" for n in range(60)} <= names
        finally:
            stop.set()
            thread.join()


class Scripted:
    """A socket whose answers are written beforehand: datagrams, or errors to raise."""

    def __init__(self, *answers: bytes | OSError, sender: int = 0, flags: int = 0) -> None:
        self.answers = list(answers)
        self.sender, self.flags = sender, flags
        self.sent: list[bytes] = []

    def sendmsg(self, parts: list[bytes], *_rest: object) -> None:
        """Keep what was sent."""
        self.sent.append(b"".join(parts))

    def recvmsg(self, _size: int, *_rest: object) -> tuple[bytes, list[object], int, Any]:
        """Give the next answer."""
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer, [], self.flags, (self.sender, 0)

    def close(self) -> None:
        """Do nothing."""


def _scripted(*answers: bytes | OSError, **options: int) -> tuple[Handle, Scripted]:
    handle = Handle()
    handle.close()
    fake = Scripted(*answers, **options)
    handle._socket = fake  # type: ignore[assignment]
    return handle, fake


def _done(seq: int, number: int = 0, flags: int = 2) -> bytes:
    body = number.to_bytes(4, "little", signed=True)
    return nlmsg.pack(Message(nlmsg.NLMSG_DONE, flags, body), seq)


def _ack(seq: int, number: int = 0) -> bytes:
    body = number.to_bytes(4, "little", signed=True) + bytes(16)
    return nlmsg.pack(Message(nlmsg.NLMSG_ERROR, nlmsg.NLM_F_CAPPED, body), seq)


DUMP = Message(18, nlmsg.NLM_F_DUMP, bytes(16))
PART = Message(16, 2, bytes(16))
TORN = Message(16, 2 | nlmsg.NLM_F_DUMP_INTR, bytes(16))


def test_an_interrupted_dump_is_read_again_to_its_end_first() -> None:
    handle, fake = _scripted(
        nlmsg.pack(TORN, 1), nlmsg.pack(PART, 1) + _done(1), nlmsg.pack(PART, 2) + _done(2)
    )
    assert [reply.seq for reply in handle.dump(DUMP)] == [2]
    assert len(fake.sent) == 2
    assert fake.answers == []


def test_a_dump_that_is_always_interrupted_ends() -> None:
    answers = [
        nlmsg.pack(PART, seq) + _done(seq, flags=2 | nlmsg.NLM_F_DUMP_INTR) for seq in range(1, 99)
    ]
    handle, fake = _scripted(*answers)
    with pytest.raises(NetlinkError, match="changed during each of") as caught:
        handle.dump(DUMP)
    assert caught.value.errno == errno.EINTR
    assert len(fake.sent) == DUMP_ATTEMPTS


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOBUFS])
def test_a_dump_that_must_be_asked_for_again(number: int) -> None:
    handle, _ = _scripted(_ack(1, -number), nlmsg.pack(PART, 2), _done(2))
    assert len(handle.dump(DUMP)) == 1
    handle, _ = _scripted(OSError(number, ""), nlmsg.pack(PART, 1), nlmsg.pack(PART, 2) + _done(2))
    assert len(handle.dump(DUMP)) == 1


def test_the_end_of_a_dump_may_be_a_refusal() -> None:
    handle, _ = _scripted(nlmsg.pack(PART, 1), _done(1, -errno.EPERM))
    with pytest.raises(NetlinkError) as caught:
        handle.dump(DUMP)
    assert caught.value.errno == errno.EPERM


def test_answers_to_somebody_else_are_passed_over() -> None:
    old = nlmsg.pack(PART, 77) + _ack(99, -errno.EPERM)
    handle, _ = _scripted(old, nlmsg.pack(PART, 1) + _ack(1))
    (answer,) = handle.execute(Message(18, 0, bytes(16)))
    assert answer is not None
    assert answer.seq == 1
    handle, _ = _scripted(old, nlmsg.pack(PART, 1), old, _done(1))
    assert len(handle.dump(DUMP)) == 1


def test_other_processes_are_not_the_kernel() -> None:
    handle, _ = _scripted(_ack(1), sender=4711)
    with pytest.raises(NetlinkError, match="the kernel sent no reply"):
        handle.execute(Message(18, 0, bytes(16)))


def test_silence_is_an_error() -> None:
    handle, _ = _scripted(_ack(1))
    with pytest.raises(NetlinkError, match="the kernel sent no reply"):
        handle.execute(PART, PART)


def test_a_reply_that_does_not_fit_is_asked_for_with_more_room() -> None:
    handle, fake = _scripted(*[_done(seq) for seq in range(1, 99)], flags=0x20)
    with pytest.raises(NetlinkError, match="a reply of more than"):
        handle.dump(DUMP)
    assert 2 < len(fake.sent) < 12


@private
def test_real_dumps_with_hardly_any_room() -> None:
    with Handle() as handle:
        handle.execute(*(rtnl.new_bridge(f"b{n}", mac=MAC) for n in range(40)))
        handle._buffer = 512
        assert len(handle.links()) == 41


@private
def test_an_abandoned_dump_is_not_in_the_way() -> None:
    with Handle() as handle:
        handle.execute(*(rtnl.new_bridge(f"b{n}", mac=MAC) for n in range(90)))
        handle._send([nlmsg.pack(rtnl.dump_links(), 4711)])
        assert len(handle.links()) == 91
        assert handle.get_link("b7") is not None


@private
def test_a_handle_stays_in_its_namespace() -> None:
    pod = os.open(f"/proc/{new_pod()}/ns/net", os.O_RDONLY)
    with Handle() as here, Handle(pod) as there:
        assert not netns.is_own(pod)
        here.execute(rtnl.new_bridge("here", mac=MAC))
        with netns.entered(pod):
            assert there.get_link("here") is None
            assert here.get_link("here") is not None
    here.close()

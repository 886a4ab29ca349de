"""Dumps that are torn, too big, refused or left alone, and answers that are not ours."""

from __future__ import annotations

import errno
import os
import socket
import threading
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cni.cidr import parse_address, parse_prefix
from netlink import handle as handle_module
from netlink import netns, nlmsg, rtnl
from netlink.events import Events
from netlink.handle import BATCH, DUMP_ATTEMPTS, Handle
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


@private
def test_a_kernel_that_lists_more_than_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 4.20, and for some questions later, it does not leave out what it should."""
    links, addresses, routes = rtnl.dump_links, rtnl.dump_addresses, rtnl.dump_routes
    neighbours = rtnl.dump_neighbours
    monkeypatch.setattr(rtnl, "dump_links", lambda **_: links())
    monkeypatch.setattr(rtnl, "dump_addresses", lambda *_: addresses())
    monkeypatch.setattr(rtnl, "dump_routes", lambda family, *_: routes(family))
    monkeypatch.setattr(rtnl, "dump_neighbours", lambda *_: neighbours())
    with Handle() as handle:
        handle.execute(
            rtnl.new_bridge("br0", mac=MAC),
            rtnl.new_veth(
                "v0", mac="0e:00:00:00:00:02", peer_name="p0", peer_mac="0e:00:00:00:00:03"
            ),
            rtnl.set_link("lo", up=True),
        )
        index = {link.name: link.index for link in handle.links()}
        handle.execute(
            rtnl.set_link("v0", master=index["br0"]),
            rtnl.new_address(index["br0"], parse_prefix("10.0.0.1/24")),
            rtnl.new_address(1, parse_prefix("10.0.1.1/24")),
            rtnl.new_route(index["br0"], parse_prefix("10.7.0.0/16"), table=99),
            rtnl.replace_neighbour(
                index["br0"], parse_address("10.0.0.9"), MAC, state=rtnl.NUD_PERMANENT
            ),
        )
        assert [link.name for link in handle.links(master=index["br0"])] == ["v0"]
        assert [link.name for link in handle.links(kind="bridge")] == ["br0"]
        assert {one.index for one in handle.addresses(1)} == {1}
        assert {one.index for one in handle.routes(4, index["br0"])} == {index["br0"]}
        assert [str(one.dst) for one in handle.routes(4, table=99)] == ["10.7.0.0/16"]
        assert "10.0.0.9" in {str(one.address) for one in handle.neighbours(index["br0"])}
        assert "10.0.0.9" not in {str(one.address) for one in handle.neighbours(1)}


@private
def test_answers_beyond_one_batch() -> None:
    with Handle() as handle:
        handle.execute(rtnl.new_bridge("br0", mac=MAC))
        asked = [rtnl.get_link("lo")] * BATCH + [rtnl.get_link("br0")]
        found = [rtnl.Link.decode(one).name for one in handle.execute(*asked) if one is not None]
        assert found == ["lo"] * BATCH + ["br0"]


@private
def test_a_silent_kernel_is_an_error() -> None:
    with Handle() as handle, pytest.raises(NetlinkError) as caught:
        handle._receive()
    assert caught.value.errno == errno.EPROTO


@private
def test_which_failures_say_that_a_link_is_not_there() -> None:
    with Handle() as handle:
        assert handle.get_link("none") is None
        assert handle.get_link(1, nsid=999) is None  # no namespace has this number
        with pytest.raises(NetlinkError):
            handle.get_link("x" * 40)


def test_a_kernel_without_an_option_and_a_caller_without_a_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Socket(socket.socket):
        refused: ClassVar[dict[int, int]] = {}
        sizes: ClassVar[list[int]] = []

        def setsockopt(self, level: int, option: int, *_: Any) -> None:
            if option in self.refused:
                raise OSError(self.refused[option], "no")
            if level == socket.SOL_SOCKET:
                self.sizes.append(option)

    monkeypatch.setattr(
        handle_module, "socket", SimpleNamespace(**vars(socket) | {"socket": Socket})
    )
    Socket.refused = {11: errno.ENOPROTOOPT, 33: errno.EPERM}
    handle_module.open_socket().close()
    assert Socket.sizes == [socket.SO_RCVBUF]
    Socket.refused = {11: errno.EIO}
    with pytest.raises(OSError, match="no"):
        handle_module.open_socket()


@private
def test_events_of_a_pod_are_heard_as_long_as_they_are_wanted() -> None:
    pod = os.open(f"/proc/{new_pod()}/ns/net", os.O_RDONLY)
    heard, here = Events(0, pod), Events(0)
    with Handle(pod) as inside:
        for on in (True, False):
            for events in (heard, here):
                events.hear_links(on=on)
            inside.execute(rtnl.new_bridge(f"br{on:d}", mac=MAC))
            assert bool(heard.wait(0)) == on
            assert heard.wait(0) == [] or on
            while heard.wait(0):
                continue
            assert here.wait(0) == []


@private
def test_a_namespace_s_lock_is_for_one() -> None:
    path = f"/proc/{new_pod()}/ns/net"
    one, other = (os.open(path, os.O_RDONLY) for _ in range(2))
    assert netns.try_lock(one)
    assert not netns.try_lock(other)
    os.close(one)
    assert netns.try_lock(other)

"""What a call does differently when a resident process serves it, or did and fell silent."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni import callname, invoke, process
from cni_flannel.bridge import ends, links
from cni_flannel.bridge.steps import Step
from cni_flannel.bridge.steps import run as run_steps
from cni_flannel.bridge.steps_claim import Confirm
from cni_flannel.resident import call, protocol
from cni_flannel.resident.call import Lent
from cni_flannel.resident.turn import Turn
from ipam import plugin as host_local
from ipam import subnet_env
from netlink import rtnl
from tests.unit.fakes import FakeEnds, FakeHandle, args, pair
from tests.unit.ipam_node import Node, refused
from tests.unit.test_cni_invoke import Delegates
from tests.unit.test_links import ME, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NOW_NS = time.time_ns()
CALL = f"b1c2d3e4f506-{NOW_NS}"
MAC = "fe:c2:d3:e4:f5:06"
ENV = {"PATH": os.environ["PATH"]}


class NoDeleter:
    """Notes what was to be deleted."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Sequence[Any]]] = []

    def delete(self, index: int, removals: Sequence[Any]) -> None:
        self.asked.append((index, removals))


class Caller:
    """A launcher that waits, until it hangs up; what the process lends to its call."""

    def __init__(self) -> None:
        self.launcher, self.server = socket.socketpair()
        self.deleter = NoDeleter()
        self.turns = threading.Lock()
        self.turn = Turn(self.turns)
        self.lent = Lent(-1, self.server, self.deleter, self.turn)  # type: ignore[arg-type]

    def hang_up(self) -> None:
        self.launcher.shutdown(socket.SHUT_WR)


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    with made.launcher, made.server:
        yield made


# ------------------------------------------------------------------------------------ a lost answer


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        ("b1c2d3e4f506-1764000000123456789", MAC),
        ("b1c2d3e4f506", MAC),
        ("ff" * 6, "fe:ff:ff:ff:ff:ff"),
        ("00" * 6, "fe:00:00:00:00:00"),
    ],
)
def test_the_mac_follows_from_the_name_of_the_call(text: str, mac: str) -> None:
    assert ends.mac_of_call({"CNI_FLANNEL_CALL": text}) == mac


@pytest.mark.parametrize(
    "text", ["", "x", "b1c2d3e4f506-", "b1c2d3e4f506-12", "x-1234567890123456789"]
)
def test_a_call_without_a_name_gets_one(text: str) -> None:
    environ = {callname.VARIABLE: text}
    callname.ensure(environ)
    assert environ[callname.VARIABLE] != text
    assert len(callname.octets(environ)) == 6
    assert 0 <= callname.time_ns(environ) - NOW_NS < 10**12


def test_a_call_that_has_a_name_keeps_it() -> None:
    environ = {callname.VARIABLE: CALL}
    callname.ensure(environ)
    assert environ == {callname.VARIABLE: CALL}


@pytest.mark.parametrize("unit", [1, 100, 10**3, 10**6, 10**7, 10**9, 2 * 10**9])
def test_a_files_time_is_as_precise_as_its_file_system(unit: int) -> None:
    environ = {callname.VARIABLE: f"b1c2d3e4f506-{10**18 + 123_456_789}"}
    came = callname.time_ns(environ)
    kept = came - came % unit
    assert callname.is_time(environ, kept)
    assert not callname.is_time(environ, kept + 1)
    assert not callname.is_time(environ, kept - 1)
    assert not callname.is_time({}, 0)


def test_names_of_calls_differ_and_have_their_time() -> None:
    names = {callname.new() for _ in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {12 + 1 + 19}
    assert len({ends.mac_of_call({"CNI_FLANNEL_CALL": name}) for name in names}) > 90


@pytest.mark.parametrize(("mac", "own"), [(MAC, True), ("02:00:00:00:00:09", False)])
def test_a_complete_attachment_makes_room_for_the_call_that_made_it(
    mac: str,
    own: bool,  # noqa: FBT001
) -> None:
    host_link, pod_link = pair(NAME, 9, alias=ME.alias(), mac=mac)
    both = FakeEnds(FakeHandle(host_link), FakeHandle(pod_link))
    if own:
        assert links.make_room(both, ME, MAC) == (NAME, True)
        assert both.host.done == [rtnl.del_link(9)]
    else:
        refused(4, links.make_room, both, ME, MAC)
        assert both.host.done == []


def test_a_lease_makes_room_for_the_call_that_made_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    given = node.args()
    lost = given.replaced(environ={"CNI_FLANNEL_CALL": CALL})
    host_local.cmd_add(lost, str(node.results))
    lease = node.leases / "10.5.0.2"
    assert lease.stat().st_mtime_ns == NOW_NS
    for other in ("", f"b1c2d3e4f506-{NOW_NS - 1}", "b1c2d3e4f506-x", CALL[:-1]):
        environ = {"CNI_FLANNEL_CALL": other}
        refused(103, host_local.cmd_add, given.replaced(environ=environ), str(node.results))
    assert lease.exists()
    result = host_local.cmd_add(lost, str(node.results))
    assert [ip["address"] for ip in result["ips"]] == ["10.5.0.3/24"]
    assert not lease.exists()
    assert "this call leased it" in node.notes[-1]


def test_a_delegate_does_not_get_the_name_of_the_call(tmp_path: Path) -> None:
    delegates = Delegates(tmp_path)
    delegates.write("x", "env >seen")
    environ = {**ENV, "CNI_FLANNEL_CALL": CALL, "OTHER": "1"}
    invoke.delete("x", delegates.args(environ=environ))
    assert "OTHER=1" in delegates.text("seen")
    assert "CNI_FLANNEL_CALL" not in delegates.text("seen")


# ------------------------------------------------------------------------ a caller who has given up


def test_a_caller_who_gave_up_is_noticed(caller: Caller) -> None:
    caller.lent.require_caller()
    caller.hang_up()
    error = refused(11, caller.lent.require_caller)
    assert "does not wait any more" in error.msg


def test_a_caller_who_waits_says_so_when_asked(caller: Caller) -> None:
    caller.launcher.send(b"\0")
    caller.lent.confirm_caller()
    assert struct.unpack("=III", caller.launcher.recv(100)) == (256, 0, 0)


def test_a_caller_who_does_not_say_so_has_given_up(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed may still have its connection."""
    monkeypatch.setattr(protocol, "REPLY_S", 0.1)
    caller.lent.require_caller()
    refused(11, caller.lent.confirm_caller)
    caller.launcher.close()
    refused(11, caller.lent.confirm_caller)


def test_the_last_step_takes_the_others_back(caller: Caller) -> None:
    both = FakeEnds(FakeHandle())
    undone: list[str] = []

    class Made(Step):
        def apply(self, ends: Any) -> None:
            del ends
            caller.hang_up()

        def undo(self, ends: Any) -> None:
            del ends
            undone.append("made")

    given = args({"name": "net"}, wanted=(caller.lent.confirm_caller,))
    refused(11, run_steps, [Made(), Confirm(given, ME, [])], both)
    assert undone == ["made"]


def test_a_program_is_stopped_when_the_connection_ends(caller: Caller) -> None:
    timer = threading.Timer(0.1, caller.hang_up)
    timer.start()
    with pytest.raises(TimeoutError, match="while the caller waited"):
        process.run(
            ["/bin/sleep", "600"], env=ENV, timeout_s=3600, connection=caller.lent.connection
        )
    timer.join()


def test_a_program_may_end_before_the_caller_does(caller: Caller) -> None:
    done = process.run(["/bin/true"], env=ENV, timeout_s=60, connection=caller.lent.connection)
    assert done.status == 0


def test_a_delegate_is_given_up_at_add_alone(tmp_path: Path, caller: Caller) -> None:
    delegates = Delegates(tmp_path)
    script = 'echo "$CNI_COMMAND" >>seen; [ "$CNI_COMMAND" = DEL ] || exec sleep 600'
    delegates.write("x", script)
    caller.hang_up()
    given = delegates.args(resident=caller.lent)
    error = refused(11, invoke.add, "x", given)
    assert error.msg.startswith('run plugin "x" ADD: ')
    invoke.delete("x", given)
    assert delegates.text("seen").split()[-2:] == ["DEL", "DEL"]


def test_waiting_for_the_daemon_ends_with_the_caller(tmp_path: Path, caller: Caller) -> None:
    caller.hang_up()
    error = refused(11, subnet_env.load, str(tmp_path / "subnet.env"), 600.0, caller.lent)
    assert "does not wait any more" in error.msg


# ------------------------------------------------------------------------------------ what is lent


def test_links_are_deleted_by_the_process(caller: Caller) -> None:
    both = FakeEnds(FakeHandle())
    both._resident = caller.lent
    before = rtnl.set_link("cni0", up=True)
    ends.Ends.drop_link(both, 9, before)
    assert both.host.done == []
    assert caller.deleter.asked == [(9, (before,))]


def test_others_work_while_the_kernel_deletes(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    had: list[bool] = []
    monkeypatch.setattr(caller.deleter, "delete", lambda *_: had.append(caller.turns.locked()))
    with caller.turn:
        assert caller.turns.locked()
        caller.lent.delete_link(9, ())
        assert caller.turns.locked()
    assert had == [False]


def test_a_caller_who_gave_up_while_it_was_not_its_turn_is_not_served(caller: Caller) -> None:
    """Not even its conf is read: it does the work itself by now."""
    strings = b"flannel\0CNI_COMMAND=STATUS\0CNI_PATH=/opt/cni/bin"
    request = protocol.Request(strings, b"{", -1, -1)
    assert json.loads(call.run(request, caller.lent)[1])["code"] == 6
    caller.hang_up()
    status, stdout, _ = call.run(request, caller.lent)
    assert (status, json.loads(stdout)["code"]) == (1, 11)


def test_the_namespace_is_the_one_that_was_opened(caller: Caller) -> None:
    fd = os.open("/proc/self/ns/net", os.O_PATH)
    lent = Lent(fd, caller.server, caller.deleter, caller.turn)  # type: ignore[arg-type]
    assert os.path.samestat(os.stat(lent.netns_file), os.stat("/proc/self/ns/net"))
    os.close(fd)
    assert caller.lent.netns_file == ""

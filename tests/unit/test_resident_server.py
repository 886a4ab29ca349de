"""The threads of the resident process: one that is lost is replaced, a pause ends the process."""

from __future__ import annotations

import _thread
import errno
import os
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni_flannel.resident import serve, server
from cni_flannel.resident.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Serving:
    """A server of the tests, whose connections are answered by `behave`."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path = str(path)
        self.said: list[str] = []
        self.behave: Callable[[socket.socket], None] = lambda _: None
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        self.listener = listener
        self.server = Server(listener, self._serve, self.said.append)
        self.server.keep(threads)

    def _serve(self, connection: Any) -> None:
        self.behave(connection)

    def call(self) -> None:
        """Connect, and wait until the server has closed."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            assert client.recv(1) == b""

    def stop(self) -> None:
        self.server.stop()
        until(lambda: self.server.threads == 0)
        self.listener.close()


def ignore(_: object) -> None:
    """Let a call that answers something stand where nothing is expected."""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setattr(serve, "THREADS", 3)
    made = Serving(tmp_path / "s", 3)
    yield made
    made.stop()


def test_every_thread_serves_and_none_is_left_when_it_stops(serving: Serving) -> None:
    together = threading.Barrier(3, timeout=20)
    serving.behave = lambda _: ignore(together.wait())
    callers = [threading.Thread(target=serving.call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    until(lambda: (serving.server.served, serving.server.busy) == (6, 0))
    assert serving.server.threads == 3


def test_who_cannot_be_accepted_is_served_when_there_is_room_again(serving: Serving) -> None:
    """The kernel says again and again that somebody waits: asking without a pause helps nobody."""
    lacking = Lacking(serving.listener)
    serving.server._listener = lacking  # type: ignore[assignment]
    caller = threading.Thread(target=serving.call)
    caller.start()
    until(lambda: lacking.asked > 0)
    caller.join(3 * server.REST_S)
    assert caller.is_alive()
    assert lacking.asked <= 3 * 20, "each thread asks some times a second"
    lacking.lacks = False
    caller.join(20)
    assert not caller.is_alive()


class Lacking:
    """A listening socket for which there are no descriptors."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.lacks = True
        self.asked = 0

    def fileno(self) -> int:
        return self._listener.fileno()

    def _accept(self) -> tuple[int, Any]:
        if not self.lacks:
            return self._listener._accept()  # type: ignore[attr-defined,no-any-return]
        self.asked += 1
        raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("error", [RuntimeError("bug"), SystemExit(3), KeyboardInterrupt()])
def test_no_call_ends_its_thread(serving: Serving, error: BaseException) -> None:
    def fail(_: socket.socket) -> None:
        raise error

    serving.behave = fail
    for _ in range(5):
        serving.call()
    until(lambda: len(serving.said) == 5)
    assert set(serving.said) == {f"{type(error).__name__}: {error}"}
    assert serving.server.threads == 3


def test_a_thread_that_is_lost_in_another_namespace_is_replaced(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.local()
    real = server._namespace
    monkeypatch.setattr(server, "_namespace", lambda: getattr(lost, "there", None) or real())

    def get_lost(_: socket.socket) -> None:
        lost.there = (0, 0)

    serving.behave = get_lost
    serving.call()
    until(lambda: serving.server.threads == 2)
    assert select.select([serving.server.fileno()], [], [], 10)[0]
    serving.server.heed()
    serving.behave = lambda _: None
    serving.server.keep(3)
    for _ in range(5):
        serving.call()
    assert serving.server.threads == 3


def test_where_no_thread_can_be_had_the_others_serve(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    serving.server.keep(5)
    assert serving.said == ["3 threads instead of 5: can't start new thread"]
    assert serving.server.threads == 3
    serving.call()


def test_without_any_thread_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        made = Server(listener, ignore, ignore)
        with pytest.raises(RuntimeError):
            made.keep(2)


# --------------------------------------------------------------------------------- the main thread


class Attended:
    """`serve._attend` in a thread, with a pipe in the place of signals."""

    def __init__(self, served: Server, idle_s: float | None) -> None:
        self.read, self.signals = os.pipe()
        self.thread = threading.Thread(target=serve._attend, args=(served, self.read, idle_s))
        self.thread.start()

    def send(self, number: int) -> None:
        os.write(self.signals, bytes([number]))

    def ended(self) -> bool:
        self.thread.join(20)
        for fd in (self.read, self.signals):
            os.close(fd)
        return not self.thread.is_alive()


def test_nobody_calls_and_it_ends(serving: Serving) -> None:
    attended = Attended(serving.server, 0.05)
    serving.call()
    assert attended.ended()


def test_it_does_not_end_while_a_call_is_served(serving: Serving) -> None:
    go_on = threading.Event()
    serving.behave = lambda _: ignore(go_on.wait(20))
    caller = threading.Thread(target=serving.call)
    caller.start()
    until(lambda: serving.server.busy == 1)
    attended = Attended(serving.server, 0.02)
    attended.thread.join(0.3)
    assert attended.thread.is_alive()
    go_on.set()
    caller.join(20)
    assert attended.ended()


def test_only_the_ending_signals_end_it(serving: Serving) -> None:
    attended = Attended(serving.server, None)
    attended.send(signal.SIGHUP)
    attended.thread.join(0.1)
    assert attended.thread.is_alive()
    attended.send(signal.SIGINT)
    assert attended.ended()


def test_lost_threads_are_replaced_meanwhile(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = threading.local()
    real = server._namespace
    monkeypatch.setattr(server, "_namespace", lambda: getattr(lost, "there", None) or real())

    def get_lost(_: socket.socket) -> None:
        lost.there = (0, 0)

    attended = Attended(serving.server, None)
    serving.behave = get_lost
    for _ in range(7):
        serving.call()
    until(lambda: serving.server.threads == 3)
    attended.send(signal.SIGTERM)
    assert attended.ended()


def test_threads_that_could_not_be_had_are_asked_for_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "RETRY_S", 0.02)
    monkeypatch.setattr(serve, "THREADS", 5)
    start = _thread.start_new_thread
    refused: list[Any] = []

    def refuse_once(work: Any, arguments: Any) -> int:
        if not refused:
            refused.append(work)
            raise RuntimeError("can't start new thread")
        return start(work, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", refuse_once)
    serving.server.keep(5)
    assert serving.server.threads == 3
    attended = Attended(serving.server, None)
    until(lambda: serving.server.threads == 5)
    attended.send(signal.SIGTERM)
    assert attended.ended()

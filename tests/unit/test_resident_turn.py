"""Turns: one call at a time, but none waits for ever, and none holds it while it waits itself."""

from __future__ import annotations

import threading

import pytest

from cni_flannel.resident import turn as turns
from cni_flannel.resident.turn import Turn


def test_calls_work_one_after_the_other() -> None:
    shared = threading.Lock()
    at_work: list[int] = []
    most: list[int] = []

    def call(number: int) -> None:
        for _ in range(50):
            with Turn(shared):
                at_work.append(number)
                most.append(len(at_work))
                at_work.remove(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert not shared.locked()


def test_who_has_waited_long_enough_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
    shared = threading.Lock()

    def call() -> None:
        with Turn(shared):
            assert shared.locked()

    with Turn(shared):
        second = threading.Thread(target=call, daemon=True)
        second.start()
        second.join(30)
        assert not second.is_alive()
        assert shared.locked()  # the second gives away nothing: it is not its turn
    assert not shared.locked()


def test_a_call_that_steps_aside_lets_another_in() -> None:
    shared = threading.Lock()
    with Turn(shared) as turn:
        turn.give()
        with Turn(shared):
            turn.give()  # not its turn any more: nothing happens
            assert shared.locked()
        turn.take()
        turn.take()
        assert shared.locked()
    assert not shared.locked()


def test_a_call_that_fails_gives_its_turn_away() -> None:
    shared = threading.Lock()
    with pytest.raises(KeyError), Turn(shared):
        raise KeyError
    assert not shared.locked()


def test_who_waits_for_somebody_else_lets_another_in_meanwhile() -> None:
    shared = threading.Lock()

    def fail() -> None:
        raise KeyError

    with Turn(shared) as turn:
        assert turn.without(shared.locked) is False
        assert shared.locked()
        with pytest.raises(KeyError):
            turn.without(fail)
        assert shared.locked()
    assert not shared.locked()

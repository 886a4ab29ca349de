"""How long the daemon waits: bounds of the pauses, and what cuts one short."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from flanneld import pace
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_pauses_double_up_to_the_longest() -> None:
    for nominal, pause in zip((1, 2, 4, 8, 8, 8), pace.delays(1, 8), strict=False):
        assert nominal / 2 <= pause <= nominal


def test_nodes_do_not_come_back_in_step() -> None:
    assert len({round(next(pace.delays()), 6) for _ in range(20)}) > 10


def test_a_store_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "delays", lambda: iter([0.0] * 9))
    answers: Iterator[StoreError | int] = iter([StoreError("away"), StoreError("still away"), 7])
    failures: list[str] = []

    async def call() -> int:
        answer = next(answers)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    assert asyncio.run(pace.patiently("a lease", call, failures.append)) == 7
    assert failures == ["waiting for a lease: away", "waiting for a lease: still away"]


def test_other_errors_are_not_waited_out() -> None:
    async def call() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(pace.patiently("a lease", call, print))


def test_an_event_cuts_a_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHORTEST_S", 0.0)
    turns: asyncio.Queue[int] = asyncio.Queue()

    async def body() -> list[int]:
        sooner = asyncio.Event()
        count = iter(range(9))

        async def work() -> None:
            turns.put_nowait(next(count))

        task = asyncio.create_task(pace.every(3600, work, sooner))
        seen = [await turns.get()]
        for _ in range(2):
            sooner.set()
            seen.append(await turns.get())
        task.cancel()
        return seen

    assert asyncio.run(body()) == list(islice(range(9), 3))

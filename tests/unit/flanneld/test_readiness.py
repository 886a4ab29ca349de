"""What is in the way: reported whole by each part, told once, and how often when it flaps."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from flanneld import digest
from flanneld import readiness as readiness_module
from flanneld.plain import plain, quoted
from flanneld.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def made(missing: Mapping[str, str] | None = None) -> Readiness:
    return Readiness(missing or {}, lambda: None)


def within(body: Callable[[], object]) -> None:
    """Run a body in a loop, which the digest's timers need."""

    async def run() -> None:
        body()

    asyncio.run(run())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_it_is_not_ready_before_each_part_has_reported() -> None:
    def body() -> None:
        readiness = made({"rules": "no look yet", "peers": "no leases yet"})
        assert [cause.text for cause in readiness.causes] == ["no look yet", "no leases yet"]
        readiness.report("rules")
        assert not readiness.ready
        readiness.report("peers")
        assert readiness.ready

    within(body)


def test_a_cause_that_does_not_block_is_told_and_keeps_its_time() -> None:
    def body() -> None:
        readiness = made()
        readiness.report("peers", (), ["one is odd"])
        (odd,) = readiness.causes
        readiness.report("peers", ["the kernel refuses"], ["one is odd"])
        assert not readiness.ready
        first, second = readiness.causes
        assert (first.text, first.blocks) == ("the kernel refuses", True)
        assert second == odd

    within(body)


def test_what_is_wrong_with_others_comes_last() -> None:
    """There may be more of it than a page shows."""

    def body() -> None:
        readiness = made()
        readiness.report("keys", (), ["a bad key", "another"])
        readiness.report("peers", (), ["a bad peer"])
        readiness.report("store", (), ["the store is away"])
        readiness.report("rules", ["no rules"])
        texts = [cause.text for cause in readiness.causes]
        assert texts == ["no rules", "the store is away", "a bad key", "another", "a bad peer"]

    within(body)


def test_each_is_one_line_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def body() -> None:
        readiness = made({"rules": "no look yet"})
        for _ in range(9):
            readiness.report("rules", ["a chain is missing"], ["a switch is off"])
        readiness.report("rules")

    within(body)
    assert lines(caplog) == [
        "a switch is off",
        "problem: a chain is missing",
        "solved: a switch is off",
        "solved: a chain is missing",
    ]


def test_what_flaps_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(digest, "WINDOW_S", 0.2)
    caplog.set_level(logging.INFO)

    async def body() -> None:
        again = asyncio.Event()
        say = readiness_module._say

        def heard(told: Mapping[str, int], seconds: float) -> None:
            say(told, seconds)
            if seconds:
                again.set()

        monkeypatch.setattr(readiness_module, "_say", heard)
        readiness = made()
        for _ in range(50):
            readiness.report("node", ["eth0 is down"])
            readiness.report("node")
        await again.wait()

    asyncio.run(body())
    assert lines(caplog) == [
        "problem: eth0 is down",
        "solved: eth0 is down",
        "problem: eth0 is down (49 times in 0 s)",
        "solved: eth0 is down (49 times in 0 s)",
    ]


def test_a_list_for_one_line() -> None:
    things = {f"route {n}": 1 for n in range(7)} | {"route 0": 3}
    said = digest.listed(things)
    assert said == "route 0 (3 times); route 1; route 2; route 3; route 4; 2 more"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("10.244.2.0/24 of wörld", "10.244.2.0/24 of wörld"),
        ("\x1b]0;x\x07\x9b", r"\x1b]0;x\x07\x9b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u202egnp\u2028\ufeff", r"\u202egnp\u2028\ufeff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_nothing_of_others_reaches_a_terminal_as_a_command(text: str, spelled: str) -> None:
    assert plain(text) == spelled


def test_a_long_value_is_cut() -> None:
    assert quoted("short") == '"short"'
    assert quoted("x" * 10**6) == '"' + "x" * 200 + '... (1000000 characters)"'

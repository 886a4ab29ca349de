"""Waiting for a state of the kernel: changes that never cease do not outlast the bound."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import NoReturn

import pytest

from netlink.events import Events


def test_changes_that_never_cease_do_not_outlast_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = map(float, range(100))
    monkeypatch.setattr("netlink.events.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(Events, "stirred", lambda *_: True)
    looks: list[int] = []

    def never() -> bool:
        looks.append(1)
        return False

    assert not Events.until(object.__new__(Events), never, 5.0)
    assert len(looks) == 5


def test_what_holds_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Events, "stirred")
    assert Events.until(object.__new__(Events), lambda: True, 0.0)


def test_events_that_were_lost_are_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks again; any other failure is one."""
    numbers = [errno.ENOBUFS, errno.EIO]

    def wait(*_: object) -> NoReturn:
        raise OSError(numbers.pop(0), "no")

    monkeypatch.setattr(Events, "wait", wait)
    assert Events.stirred(object.__new__(Events), 1.0) is True
    with pytest.raises(OSError, match="no"):
        Events.stirred(object.__new__(Events), 1.0)

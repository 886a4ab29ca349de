"""Waiting for a state of the kernel: changes that never cease do not outlast the bound."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from netlink.events import Events

if TYPE_CHECKING:
    import pytest


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

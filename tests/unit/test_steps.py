"""Running steps: order, roll-back newest first, and what an error says."""

from __future__ import annotations

import errno

import pytest

from cni import errors
from cni.errors import CNIError, Interrupted
from cni_flannel.bridge import steps
from cni_flannel.bridge.steps import REMEDY, Step
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import FakeEnds
from tests.unit.test_netconf import named

NAMES = ("one", "two", "three")
GONE = NetlinkError(errno.EPERM, "because")


class Recorder(Step):
    """A step that writes down what is done to it, and fails where it is told to."""

    def __init__(
        self,
        name: str,
        log: list[str],
        *,
        apply: BaseException | None = None,
        undo: BaseException | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.failures = {"apply": apply, "undo": undo}

    def describe(self) -> list[str]:
        return [f"do {self.name}"]

    def _note(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        failure = self.failures[what]
        if isinstance(failure, Interrupted):
            self.failures[what] = None  # a signal comes once
        if failure is not None:
            raise failure

    def apply(self, ends: object) -> None:
        del ends
        self._note("apply")

    def undo(self, ends: object) -> None:
        del ends
        self._note("undo")


def three(
    log: list[str],
    apply: dict[str, BaseException] | None = None,
    undo: dict[str, BaseException] | None = None,
) -> list[Recorder]:
    apply, undo = apply or {}, undo or {}
    return [Recorder(n, log, apply=apply.get(n), undo=undo.get(n)) for n in NAMES]


def test_steps_are_told_and_applied_in_order() -> None:
    log: list[str] = []
    told: list[str] = []
    steps.run(three(log), FakeEnds(), told.append)
    assert log == ["apply one", "apply two", "apply three"]
    assert told == ["do one", "do two", "do three"]


FAILURES: list[tuple[str, BaseException]] = [
    ("the kernel refuses", GONE),
    ("a file", OSError(5, "I/O")),
    ("a rule writer", CNIError(101, "no nft")),
    ("a signal", Interrupted(15)),
    ("a bug", ValueError("x")),
    ("control-c of a developer", KeyboardInterrupt()),
]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("failure", named(FAILURES))
def test_a_failure_undoes_what_was_begun_newest_first(at: int, failure: BaseException) -> None:
    log: list[str] = []
    expected = CNIError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        steps.run(three(log, apply={NAMES[at]: failure}), FakeEnds())
    begun = NAMES[: at + 1]
    assert log == [f"apply {n}" for n in begun] + [f"undo {n}" for n in reversed(begun)]


def test_a_refusal_of_the_kernel_says_what_was_attempted() -> None:
    with pytest.raises(CNIError) as caught:
        steps.run(three([], apply={"two": GONE}), FakeEnds())
    error = caught.value
    assert (error.code, error.details) == (errors.KERNEL_REFUSED, REMEDY)
    assert error.msg == "do two: operation not permitted: because"
    assert error.__cause__ is GONE


def test_a_failed_undo_stops_no_other_and_is_told_in_the_details() -> None:
    log: list[str] = []
    todo = three(log, apply={"three": GONE}, undo={"two": CNIError(101, "stuck"), "three": GONE})
    with pytest.raises(CNIError) as caught:
        steps.run(todo, FakeEnds())
    assert log[3:] == ["undo three", "undo two", "undo one"]
    assert caught.value.details.splitlines() == [
        REMEDY,
        "could not roll back do three: operation not permitted: because",
        "could not roll back do two: stuck",
    ]


def test_an_error_of_a_step_keeps_code_message_and_details() -> None:
    failure = CNIError(7, "wrong", "correct it")
    with pytest.raises(CNIError) as caught:
        steps.run(three([], apply={"two": failure}, undo={"one": GONE}), FakeEnds())
    assert (caught.value.code, caught.value.msg) == (7, "wrong")
    assert caught.value.details.startswith("correct it\ncould not roll back do one")


def test_a_signal_during_the_roll_back_does_not_stop_it() -> None:
    log: list[str] = []
    todo = three(log, apply={"three": GONE}, undo={"two": Interrupted(15)})
    with pytest.raises(CNIError):
        steps.run(todo, FakeEnds())
    assert log[3:] == ["undo three", "undo two", "undo two", "undo one"]


def test_undoing_what_was_done_returns_the_problems() -> None:
    log: list[str] = []
    assert steps.undo(three(log, undo={"two": GONE}), FakeEnds()) == [
        "could not roll back do two: operation not permitted: because"
    ]
    assert log == ["undo three", "undo two", "undo one"]

"""The last step of an ADD that a resident process serves: to see that somebody waits for it.

A process that was started for one call ends when it is killed.  A thread of a resident one goes on
when its launcher is, so it asks when everything is made: if the caller does not say that it waits,
this step fails and all steps before it are taken back.
Imports: ``steps``.
"""

from __future__ import annotations

from cni_flannel.bridge.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Resident
    from cni_flannel.bridge.ends import Ends


class CallerWaits(Step):
    """Changes nothing; CNIError 11 unless the caller says that it waits."""

    __slots__ = ("resident",)

    def __init__(self, resident: Resident) -> None:
        self.resident = resident

    def describe(self) -> list[str]:
        return []

    def apply(self, ends: Ends) -> None:  # noqa: ARG002 - it is about the caller alone
        self.resident.confirm_caller()

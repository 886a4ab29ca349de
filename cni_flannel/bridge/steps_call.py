"""The last step of an ADD that a resident process serves: to see that somebody waits for it.

A process that was started for one call is told by a signal that nobody waits any more.  A thread
of a resident one has to ask, and does when everything is made: if the caller has given up, this
step fails and all steps before it are taken back.
Imports: ``steps``.
"""

from __future__ import annotations

from cni_flannel.bridge.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Resident
    from cni_flannel.bridge.ends import Ends


class CallerWaits(Step):
    """Changes nothing; CNIError 11 if the caller has given up."""

    __slots__ = ("resident",)

    def __init__(self, resident: Resident) -> None:
        self.resident = resident

    def describe(self) -> list[str]:
        return []

    def apply(self, ends: Ends) -> None:  # noqa: ARG002 - it is about the caller alone
        self.resident.require_caller()

    def undo(self, ends: Ends) -> None:
        """Nothing was done."""

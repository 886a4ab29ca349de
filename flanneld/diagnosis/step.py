"""A step of a packet's way, as it is told. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flanneld.diagnosis.leg import Taken


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was looked at, whether it is right, what was found, and what to do."""

    name: str
    is_ok: bool
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.found}. {self.remedy}" if self.remedy else self.found


def unroutable(name: str, address: object, taken: Taken) -> Step:
    """Say that the kernel has no usable route to an address."""
    why = taken.refusal or f"{taken.text} leads nowhere"
    return Step(name, False, f"the kernel has no route to {address}: {why}", "look at ip route")

"""Making the kernel hold what is desired: read, compare, carry out, and say what is left.

The one way to every state, for the start, a new peer, a link that went down, a device that
was deleted, entries that were flushed, and the end. Nothing is remembered between two passes.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.desired import Route, Vxlan
from flanneld.kernel import batch, devices, dump, underlay
from flanneld.kernel.batch import GONE, Request
from flanneld.kernel.difference import difference
from flanneld.kernel.events import Watched
from flanneld.kernel.requests import requests
from flanneld.kernel.vxlan import VxlanLink
from netlink.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.desired import Desired
    from flanneld.kernel.batch import Refusal
    from flanneld.kernel.difference import Change, Difference
    from flanneld.kernel.present import Present


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did. ``changes`` were carried out; ``problems`` stand in the way of peers.

    ``warnings`` do not: a setting that the kernel refused.
    """

    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """How many entries and devices were changed."""
        return len(self.changes)

    @property
    def complete(self) -> bool:
        """Whether the kernel now holds everything that is desired."""
        return not self.problems


class Reconciler:
    """The kernel of this process's network namespace, compared with what is desired of it.

    ``watched`` are the links that the last pass had to do with, for ``events.Events``.
    """

    def __init__(self) -> None:
        """Open a netlink socket. OSError."""
        self._handle = Handle()
        self._turn = asyncio.Lock()
        self.watched = Watched()

    def close(self) -> None:
        """Close the socket; what was programmed stays."""
        self._handle.close()

    async def macs(self) -> Mapping[str, str]:
        """Give the MAC of each VXLAN device by name: one that is reused keeps its own."""
        async with self._turn:
            found = dump.read_vxlans(self._handle)
        return {name: device.link.mac for name, device in found.items()}

    async def differences(self, desired: Desired) -> Difference:
        """Compare and change nothing."""
        async with self._turn:
            return difference(desired, dump.read(self._handle, desired))

    async def apply(self, desired: Desired) -> Report:
        """Carry out the difference; the kernel's refusals are the report's problems."""
        async with self._turn:
            return await self._apply(desired)

    async def _apply(self, desired: Desired) -> Report:
        present = dump.read(self._handle, desired)
        found = difference(desired, present)
        changes: list[Change] = []
        problems = [*desired.problems]
        warnings = [*desired.warnings]
        if found.devices:
            broken = self._apply_devices(found.devices, present, changes, warnings)
            present = dump.read(self._handle, desired)
            found = difference(desired, present)
            lacking = {change.value for change in found.devices}
            changes = [change for change in changes if change.value not in lacking]
            problems += broken
        problems += found.problems
        feasible, waiting = _split(found.entries, present)
        problems += waiting
        refused = await self._apply_entries(feasible, present)
        self.watched = Watched(
            indexes=frozenset(present.names),
            names=frozenset(dump.named(desired) - present.links.keys()),
            tables=frozenset(
                present.links[device.name].index
                for device in desired.devices
                if device.name in present.links
            ),
        )
        failed = {id(refusal.subject) for refusal in refused}
        changes += (change for change in feasible if id(change) not in failed)
        problems += (self._explain(refusal) for refusal in refused)
        return Report(tuple(changes), tuple(problems), tuple(warnings))

    def _apply_devices(
        self,
        wanted: Iterable[Change],
        present: Present,
        changes: list[Change],
        warnings: list[str],
    ) -> list[str]:
        problems = []
        for change in wanted:
            try:
                warnings += devices.apply(self._handle, change, present)
                changes.append(change)
            except devices.DeviceError as error:
                problems.append(str(error))
        return problems

    async def _apply_entries(
        self, changes: Iterable[Change], present: Present
    ) -> list[Refusal[Change]]:
        indexes = {name: link.index for name, link in present.links.items()}
        return await batch.execute(
            self._handle,
            [
                Request(message, change, _forgiven(change))
                for change in changes
                for message in requests(change, indexes)
            ],
        )

    def _explain(self, refusal: Refusal[Change]) -> str:
        change, error = refusal.subject, refusal.error
        route = change.value
        said = f"{change.action} {change.value}: {error}"
        if not isinstance(route, Route):
            return said
        if error.errno == errno.EEXIST:
            return (
                f"{route}: another route has this destination:"
                f" {underlay.holder(self._handle, route.destination)};"
                " delete it if it is not wanted: routes of others are not touched"
            )
        if error.errno == errno.EINVAL and route.onlink and route.destination.version == 6:
            return (
                f"{said}. By way of {underlay.holder(self._handle, route.destination)} the kernel"
                " reaches that gateway already; IPv6 then takes no other link for it: delete that"
                " route, or choose another IPv6Network"
            )
        return said


def _split(changes: Iterable[Change], present: Present) -> tuple[list[Change], list[str]]:
    """Part what can be done from what waits for a link, and say so once for each link."""
    feasible: list[Change] = []
    waiting: Counter[str] = Counter()
    for change in changes:
        name = _link(change)
        link = present.links.get(name)
        needs_link = change.action != "remove" and name  # a blackhole has none
        if not needs_link or (link is not None and link.is_up):
            feasible.append(change)
        else:
            waiting[f"{name} {'does not exist' if link is None else 'is down'}"] += 1
    return feasible, [f"{what}: {number} entries wait for it" for what, number in waiting.items()]


def _link(change: Change) -> str:
    if isinstance(change.value, Vxlan | VxlanLink):
        raise TypeError(f"{change} is no change of an entry")
    return change.value.link


def _forgiven(change: Change) -> frozenset[int]:
    """Errors that say that the kernel already is as wanted."""
    if change.action == "remove":
        return GONE
    if change.held:  # of the new route: it is there; of the old ones: they are not
        return GONE | {errno.EEXIST}
    return frozenset()

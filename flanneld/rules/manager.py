"""The node's traffic rules, kept by whichever packet filter the network's configuration names.

What the daemon calls.  The other filter's rules of an earlier run go away after ours are there, so
that no packet meets neither.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld.rules.generation import Watch
from flanneld.rules.iptables import Iptables, Opposite
from flanneld.rules.nftables import Nftables
from flanneld.rules.programs import RulesError, system

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from flanneld.desired import AnyNetwork
    from flanneld.rules.programs import Programs
    from flanneld.rules.texts import Traffic

_log = logging.getLogger(__name__)

_VERSIONS = (4, 6)
_OTHERS_S = 60.0  # the filters that are not in use are looked at again so long after
Filter = Iptables | Nftables


class Rules:
    """The rules of both families.

    ``traffic`` has one entry for each family that the network has; the other family is left without
    rules.  ``previous`` are networks that this node had before (of its ``subnet.env``): their
    rules are outdated, while rules of any other network belong to another daemon on this node.
    Every method raises RulesError when the packet filter refuses, or is not installed.
    """

    def __init__(
        self,
        traffic: Iterable[Traffic],
        *,
        nftables: bool,
        previous: Iterable[AnyNetwork] = (),
        programs: Programs | None = None,
    ) -> None:
        self._programs = programs or system()
        self._traffic = {item.version: item for item in traffic}
        self._ours = (*(item.network for item in self._traffic.values()), *previous)
        kinds: list[type[Nftables | Iptables]] = [Iptables, Nftables]
        chosen, other = reversed(kinds) if nftables else kinds
        self._chosen: dict[int, Filter] = {
            version: chosen(version, self._programs) for version in _VERSIONS
        }
        self._others: list[Filter] = [
            kind(version, self._programs) for kind in (other, Opposite) for version in _VERSIONS
        ]
        self._watch = Watch()
        self._seen: object = None  # the token at which all was right
        self._unlooked = True  # whether the others' rules may have changed since they were seen
        self._until = 0.0
        self._unseen: tuple[str, ...] = ()

    async def ensure(self) -> list[str]:
        """Make the rules right, and say what was wrong, one sentence each.

        Right rules are read, not written, and not even read while nobody has changed anything.
        What an earlier run with another configuration left behind, or an older flannel, is removed
        too: wherever it is, it would masquerade pods' packets.
        """
        repaired: list[str] = []
        now = self._watch.token()
        if now is None or now != self._seen:
            self._unlooked = True
            repaired, errors = await _try_each(map(self._ensure, self._traffic.values()))
            if errors:
                raise RulesError("; ".join(errors))
        if self._unlooked and time.monotonic() >= self._until:
            repaired += await self._remove_left_behind()
            self._unlooked, self._until = False, time.monotonic() + _OTHERS_S
        self._seen = None if repaired else now
        return repaired

    async def _ensure(self, traffic: Traffic) -> list[str]:
        wanted = await self._supported(traffic)
        return await self._chosen[traffic.version].ensure(wanted, self._ours)

    async def check(self) -> list[str]:
        """Say what is wrong, one sentence each; writes nothing."""
        faults = [
            fault
            for version, traffic in self._traffic.items()
            for fault in await self._chosen[version].faults(
                await self._supported(traffic), self._ours
            )
        ]
        # What a filter that is not in use has, and cannot be read, is not known: no fault.
        left, _ = await _try_each(self._left_in(one) for one in self._unused)
        return [*faults, *left]

    async def _left_in(self, one: Filter) -> list[str]:
        return await one.faults(None, self._ours) if await one.is_there() else []

    @property
    def _unused(self) -> list[Filter]:
        """The other filters, and the families that the network has no more."""
        gone = [self._chosen[version] for version in _VERSIONS if version not in self._traffic]
        return [*self._others, *gone]

    async def remove(self) -> list[str]:
        """Take every rule, chain and table of ours away, of both filters; name what there was.

        Rules of another daemon's network stay, with the chains that they are in.  Whatever cannot
        be taken away, all else is; then RulesError says what was not.
        """
        filters = [*self._chosen.values(), *self._others]
        removed, errors = await _try_each(self._removed_from(one) for one in filters)
        if errors:
            also = f" (removed: {', '.join(removed)})" if removed else ""
            raise RulesError("; ".join(errors) + also)
        return removed

    async def _removed_from(self, one: Filter) -> list[str]:
        return await one.remove(self._ours) if await one.is_there() else []

    async def _remove_left_behind(self) -> list[str]:
        """Clear the other filters, and the family that the network has no more.

        A filter that is not installed cannot have written anything here; of one that does not work,
        on a kernel without IPv6 say, it is not known, and no reason to do without rules.
        """
        removed, errors = await _try_each(self._cleared(one) for one in self._unused)
        for error in errors:
            if error not in self._unseen:
                _log.warning("rules of an earlier run, if there are any, stay: %s", error)
        self._unseen = tuple(errors)
        return removed

    async def _cleared(self, one: Filter) -> list[str]:
        return await one.ensure(None, self._ours) if await one.is_there() else []

    async def _supported(self, traffic: Traffic) -> Traffic:
        """Leave out what this iptables does not know."""
        filter_ = self._chosen[traffic.version]
        if not isinstance(filter_, Iptables) or not traffic.fully_random:
            return traffic
        return replace(traffic, fully_random=await filter_.knows_fully_random())


async def _try_each(calls: Iterable[Awaitable[list[str]]]) -> tuple[list[str], list[str]]:
    """Make every call, whatever becomes of another: what they gave, and the errors' words."""
    given, errors = [], []
    for call in calls:
        try:
            given += await call
        except RulesError as error:
            errors.append(str(error))
    return given, errors

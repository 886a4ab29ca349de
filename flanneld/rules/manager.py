"""The node's traffic rules, kept by whichever packet filter the network's configuration names.

What the daemon calls.  The other filter's rules of an earlier run go away after ours are there, so
that no packet meets neither.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld.rules import generation
from flanneld.rules.iptables import Iptables
from flanneld.rules.nftables import Nftables
from flanneld.rules.programs import RulesError, system

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from flanneld.desired import AnyNetwork
    from flanneld.rules.programs import Programs
    from flanneld.rules.texts import Traffic

_log = logging.getLogger(__name__)

_VERSIONS = (4, 6)


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
        kinds = (Nftables, Iptables) if nftables else (Iptables, Nftables)
        self._chosen, self._other = (
            {version: kind(version, self._programs) for version in _VERSIONS} for kind in kinds
        )
        self._settled = False
        self._seen: int | None = None  # the generation at which all was right

    async def ensure(self) -> list[str]:
        """Make the rules right, and say what was wrong, one sentence each.

        Right rules are read, not written, and not even read while the kernel counts no change of
        anybody's.  The first time, all that an earlier run with another configuration left behind
        is removed too.
        """
        now = await self._generation()
        if now is not None and now == self._seen:
            return []
        repaired, errors = await _try_each(map(self._ensure, self._traffic.values()))
        if errors:
            raise RulesError("; ".join(errors))
        if not self._settled:
            repaired += await self._remove_left_behind()
            self._settled = True
        self._seen = None if repaired else now
        return repaired

    async def _ensure(self, traffic: Traffic) -> list[str]:
        wanted = await self._supported(traffic)
        return await self._chosen[traffic.version].ensure(wanted, self._ours)

    async def check(self) -> list[str]:
        """Say what is wrong, one sentence each; writes nothing."""
        return [
            fault
            for version, traffic in self._traffic.items()
            for fault in await self._chosen[version].faults(
                await self._supported(traffic), self._ours
            )
        ]

    async def remove(self) -> list[str]:
        """Take every rule, chain and table of ours away, of both filters; name what there was.

        Rules of another daemon's network stay, with the chains that they are in.  Whatever cannot
        be taken away, all else is; then RulesError says what was not.
        """
        filters = [*self._chosen.values(), *self._other.values()]
        removed, errors = await _try_each(
            one.remove(self._ours) for one in filters if one.installed
        )
        if errors:
            also = f" (removed: {', '.join(removed)})" if removed else ""
            raise RulesError("; ".join(errors) + also)
        return removed

    async def _generation(self) -> int | None:
        """Give the number of the packet filter's last change, if every change is counted."""
        for version in self._traffic:
            if not await self._chosen[version].is_counted():
                return None
        return generation.current()

    async def _remove_left_behind(self) -> list[str]:
        """Clear the other filter, and the family that the network has no more.

        A filter that is not installed cannot have written anything here; of one that does not work,
        on a kernel without IPv6 say, it is not known, and no reason to do without rules.
        """
        unused = [self._chosen[version] for version in _VERSIONS if version not in self._traffic]
        removed, errors = await _try_each(
            one.ensure(None, self._ours)
            for one in (*self._other.values(), *unused)
            if one.installed
        )
        for error in errors:
            _log.warning("rules of an earlier run, if there are any, stay: %s", error)
        return removed

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

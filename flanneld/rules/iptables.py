"""The rules of a family kept by iptables: one read, and one transaction for all that is wrong.

``iptables-restore`` shows the kernel both states of a table and nothing between them, so no packet
passes unmasqueraded while rules are replaced.  What to write is decided in ``saved``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flanneld.rules import kinds, saved
from flanneld.rules.programs import RulesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flanneld.desired import AnyNetwork
    from flanneld.rules.programs import Programs
    from flanneld.rules.texts import Traffic

_LOCK_S = "30"  # how long iptables-restore waits for the xtables lock
_ATTEMPTS = 4  # another program may change a table between our look and our write
_FULLY_RANDOM_SINCE = (1, 6, 2)


class Iptables:
    """One family's rules, by the node's own iptables."""

    def __init__(self, version: int, programs: Programs) -> None:
        self.version = version
        self._program = kinds.PROGRAM[version]
        self._programs = programs
        self._version = ""

    async def is_there(self) -> bool:
        """Whether the programs for this family are there at all."""
        return self._programs.has(f"{self._program}-restore")

    async def knows_fully_random(self) -> bool:
        """Whether this iptables has ``--random-fully``."""
        return knows_fully_random(await self._printed_version())

    async def _printed_version(self) -> str:
        if not self._version:
            self._version = (await self._programs.run([self._program, "--version"])).output
        return self._version

    async def faults(self, traffic: Traffic | None, ours: Sequence[AnyNetwork]) -> list[str]:
        """Say what is wrong, one sentence each."""
        return self._sentences(saved.plan(await self._read(), traffic, ours).faults)

    async def ensure(self, traffic: Traffic | None, ours: Sequence[AnyNetwork]) -> list[str]:
        """Make right what is wrong, and say what it was; None: no rules of ours."""
        wrong = await self._settle(lambda tables: saved.plan(tables, traffic, ours))
        return self._sentences(wrong)

    async def remove(self, ours: Sequence[AnyNetwork]) -> list[str]:
        """Take away our rules, and chains without others with all that leads to them; name them."""
        named = await self._settle(lambda tables: saved.plan_removal(tables, ours))
        return [f"{self._program} {chain}" for chain in named]

    async def _settle(
        self, plan: Callable[[Mapping[str, Sequence[str]]], saved.Plan]
    ) -> Sequence[str]:
        """Look, and write what the plan says; look again when the write is refused."""
        complaint = ""
        for _ in range(_ATTEMPTS):
            found = plan(await self._read())
            if not found.text:
                return found.faults
            done = await self._programs.run(
                [f"{self._program}-restore", "--noflush", "-w", _LOCK_S], found.text
            )
            if done.status == 0:
                return found.faults
            complaint = done.complaint
        raise RulesError(f"write rules with {self._program}-restore: {complaint}")

    async def _read(self) -> dict[str, list[str]]:
        done = await self._programs.run([f"{self._program}-save"])
        if done.status:
            raise RulesError(f"read rules with {self._program}-save: {done.complaint}")
        return saved.parse(done.output)

    def _sentences(self, faults: Sequence[str]) -> list[str]:
        return [f"{self._program}: {fault}" for fault in faults]


class Opposite(Iptables):
    """One family's rules of the kind that the node's iptables is not."""

    async def is_there(self) -> bool:
        """Whether there are rules of that kind; RulesError if they cannot be looked at."""
        found = await kinds.opposite(self._programs, self.version)
        if found is None:
            return False
        kind, command = found
        if command is None:
            if kind == "nf_tables":  # then nft shows them, or there never was such an iptables
                return False
            raise RulesError(
                f"the kernel has tables of iptables-legacy, and {self._program}-legacy is not"
                " installed: whether rules of an earlier flannel are in them is not known"
            )
        self._program = command
        return True


def knows_fully_random(printed: str) -> bool:
    """Read ``iptables --version``: ``iptables v1.8.9 (nf_tables)``."""
    number = re.search(r"v(\d+)\.(\d+)(?:\.(\d+))?", printed)
    if number is None:
        raise RulesError(f'read the version of iptables: "{printed.strip()}" has none')
    return tuple(int(part or 0) for part in number.groups()) >= _FULLY_RANDOM_SINCE

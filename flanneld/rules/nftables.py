"""The rules of a family kept by nft: one read, and one transaction for all that is wrong.

Needs nothing of iptables.  What to write is decided in ``listed`` and ``texts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.rules import listed, texts
from flanneld.rules.programs import RulesError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flanneld.desired import AnyNetwork
    from flanneld.rules.listed import Listed
    from flanneld.rules.programs import Programs
    from flanneld.rules.texts import Traffic


class Nftables:
    """One family's rules, in a table of our own."""

    def __init__(self, version: int, programs: Programs) -> None:
        self.version = version
        self._where = f"{texts.FAMILY[version]} {texts.TABLE[version]}"
        self._programs = programs

    async def is_there(self) -> bool:
        """Whether there is the program."""
        return self._programs.has("nft")

    async def faults(self, traffic: Traffic | None, ours: Sequence[AnyNetwork]) -> list[str]:
        """Say what is wrong, one sentence each."""
        return self._faults(await self._read(), traffic, ours)

    async def ensure(self, traffic: Traffic | None, ours: Sequence[AnyNetwork]) -> list[str]:
        """Make right what is wrong, and say what it was; None: no rules of ours."""
        chains = await self._read()
        wrong = self._faults(chains, traffic, ours)
        if wrong:
            await self._write(listed.replacement(chains or {}, texts.nft_rules(traffic), ours))
        return wrong

    async def remove(self, ours: Sequence[AnyNetwork]) -> list[str]:
        """Take away our rules, and the table if it has no others; name it if there was one."""
        chains = await self._read()
        if chains is None or (chains and not self._faults(chains, None, ours)):
            return []
        kept = listed.replacement(chains, {}, ours)
        await self._write(kept)
        return [f"{'our rules of ' if kept else ''}nftables table {self._where}"]

    def _faults(
        self,
        chains: Mapping[str, Listed] | None,
        traffic: Traffic | None,
        ours: Sequence[AnyNetwork],
    ) -> list[str]:
        wanted = texts.nft_rules(traffic)
        if chains is None:
            return [f"nft: table {self._where} is missing"] if wanted else []
        return [
            f"nft: table {self._where}: {fault}" for fault in listed.faults(chains, wanted, ours)
        ]

    async def _read(self) -> dict[str, Listed] | None:
        """Read our table; None if there is none."""
        done = await self._programs.run(["nft", "-j", "list", "table", *self._where.split()])
        if done.status == 0:
            return self._parse(done.output)
        if "No such file or directory" in done.complaint:
            return None
        raise RulesError(f"list table {self._where} with nft: {done.complaint}")

    def _parse(self, printed: str) -> dict[str, Listed]:
        try:
            return listed.parse(printed)
        except (LookupError, TypeError, ValueError):
            raise RulesError(
                f"read what nft printed of table {self._where}: it is not what nft prints as JSON"
            ) from None

    async def _write(self, chains: Mapping[texts.BaseChain, Sequence[str]]) -> None:
        script = texts.nft_script(self.version, chains)
        done = await self._programs.run(["nft", "-f", "-"], script)
        if done.status:
            raise RulesError(f"write table {self._where} with nft: {done.complaint}")

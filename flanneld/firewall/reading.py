"""Reading the packet filters of this node: each table, by whichever program shows it whole.

iptables' own tables are read by iptables: nft does not show what its extensions ask.  Nothing is
read of the legacy kernel interface unless it has tables: asking would load its modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.firewall import listed, saved
from flanneld.firewall.chains import Firewall
from flanneld.rules import generation, kinds, legacy
from flanneld.rules.programs import RulesError

if TYPE_CHECKING:
    from flanneld.firewall.chains import Table
    from flanneld.rules.programs import Programs

_FILTERING = ("raw", "mangle", "filter", "security")  # nat's rules drop nothing
_STRANGE = "nft prints other JSON than is known here"
_FAMILY = {"ip": 4, "ip6": 6}


async def read(programs: Programs, *, translations: bool = False) -> Firewall:
    """Read all tables that can drop; with ``translations`` those that rewrite addresses, too.

    What cannot be read is said in the answer.
    """
    names = (*_FILTERING, "nat") if translations else _FILTERING
    reading = _Reading(programs, names)
    await reading.legacy()
    await reading.nftables()
    return Firewall(tuple(reading.tables), tuple(reading.unknown))


class _Reading:
    def __init__(self, programs: Programs, names: tuple[str, ...]) -> None:
        self._programs = programs
        self._names = names
        self.tables: list[Table] = []
        self.unknown: list[str] = []

    async def legacy(self) -> None:
        for version in (4, 6):
            present = [name for name in legacy.tables(version) if name in self._names]
            if not present:
                continue
            command = await kinds.command(self._programs, version, "legacy")
            if command is None:
                self.unknown.append(
                    f"the kernel has tables of iptables-legacy ({', '.join(present)}), and"
                    " iptables-legacy is not installed: what their rules drop is not known"
                )
                continue
            for name in present:
                found = await self._saved(command, "legacy", version, name)
                self.tables += [] if found is None else [found]

    async def nftables(self) -> None:
        if not self._programs.has("nft"):
            if generation.current():
                await self._without_nft()
            return
        try:
            chains = await self._nft("list", "chains")
            found = listed.tables_with_hooks(chains) if chains.strip() else []
        except RulesError as error:
            self.unknown.append(f"what nftables' rules drop is not known: {error}")
            return
        except (ValueError, LookupError, TypeError):
            self.unknown.append(f"what nftables' rules drop is not known: {_STRANGE}")
            return
        for family, name in found:
            own = await self._of_iptables(family, name)
            if own is not None:
                self.tables.append(own)
            elif (family, name) not in {("ip", "nat"), ("ip6", "nat")} or "nat" in self._names:
                await self._table(family, name)

    async def _without_nft(self) -> None:
        self.unknown.append(
            "nft is not installed: what tables of nftables drop, other than iptables' own, is not"
            " known"
        )
        for family in _FAMILY:
            for name in self._names:
                own = await self._of_iptables(family, name)
                self.tables += [] if own is None else [own]

    async def _of_iptables(self, family: str, name: str) -> Table | None:
        """Read a table by iptables-nft; None if it is not its own."""
        if family not in _FAMILY or name not in self._names:
            return None
        command = await kinds.command(self._programs, _FAMILY[family], "nf_tables")
        if command is None:
            return None
        return await self._saved(command, "nf_tables", _FAMILY[family], name)

    async def _saved(self, command: str, kind: str, version: int, name: str) -> Table | None:
        try:
            done = await self._programs.run([f"{command}-save", "-t", name])
        except RulesError as error:
            self.unknown.append(f"what table {name} of {command} drops is not known: {error}")
            return None
        tool = f"{'iptables' if version == 4 else 'ip6tables'} ({kind})"
        return saved.table(tool, command, version, name, done.output) if not done.status else None

    async def _table(self, family: str, name: str) -> None:
        try:
            printed = await self._nft("list", "table", family, name)
            self.tables.append(listed.table(family, name, printed))
        except RulesError as error:
            self.unknown.append(f"what nft's table {family} {name} drops is not known: {error}")
        except (ValueError, LookupError, TypeError):
            self.unknown.append(f"what nft's table {family} {name} drops is not known: {_STRANGE}")

    async def _nft(self, *words: str) -> str:
        done = await self._programs.run(["nft", "-j", *words])
        if done.status:
            raise RulesError(f"nft {' '.join(words)}: {done.complaint}")
        return done.output

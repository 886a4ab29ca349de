"""The two kinds of iptables: "legacy", with tables of its own in the kernel, and "nf_tables".

``iptables`` is one of them; a node that has changed from one to the other keeps the rules of the
first.  Distributions name both (``iptables-legacy``, ``iptables-nft``), or have one alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from flanneld.rules import generation, legacy

if TYPE_CHECKING:
    from flanneld.rules.programs import Programs

Kind = Literal["legacy", "nf_tables"]

PROGRAM = {4: "iptables", 6: "ip6tables"}
_SUFFIX: dict[Kind, str] = {"legacy": "legacy", "nf_tables": "nft"}


def kind_of(printed: str) -> Kind:
    """Read ``iptables --version``: ``iptables v1.8.9 (nf_tables)``; before 1.8 all are legacy."""
    return "nf_tables" if re.search(r"\(nf_tables\)", printed) else "legacy"


async def opposite(programs: Programs, version: int) -> tuple[Kind, str | None] | None:
    """Give the kind that ``iptables`` is not, if this node may have rules of it; and its program.

    None if there are none: nothing has to be looked at, and no module of the kernel is loaded.
    """
    plain = PROGRAM[version]
    kind: Kind = "legacy"
    if programs.has(plain):
        printed = (await programs.run([plain, "--version"])).output
        kind = "nf_tables" if kind_of(printed) == "legacy" else "legacy"
    if kind == "legacy" and not legacy.tables(version):
        return None
    if kind == "nf_tables" and not generation.current():
        return None
    return kind, await command(programs, version, kind)


async def command(programs: Programs, version: int, kind: Kind) -> str | None:
    """Give the name of the program of a kind (its ``-save`` is meant, too); None without one."""
    plain = PROGRAM[version]
    named = f"{plain}-{_SUFFIX[kind]}"
    if programs.has(f"{plain}-save") and programs.has(plain):
        printed = (await programs.run([plain, "--version"])).output
        if kind_of(printed) == kind:
            return plain
    return named if programs.has(f"{named}-save") else None

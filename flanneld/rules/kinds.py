"""The two kinds of iptables: "legacy", with tables of its own in the kernel, and "nf_tables".

``iptables`` is one of them; a node that has changed from one to the other keeps the rules of the
first.  Distributions name both (``iptables-legacy``, ``iptables-nft``), or have one alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flanneld.rules.programs import Programs

Kind = Literal["legacy", "nf_tables"]

PROGRAM = {4: "iptables", 6: "ip6tables"}
_SUFFIX: dict[Kind, str] = {"legacy": "legacy", "nf_tables": "nft"}
_LEGACY_TABLES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


def legacy_tables(version: int) -> list[str]:
    """Name the tables of iptables-legacy that this network namespace has; [] if none."""
    try:
        return Path(_LEGACY_TABLES[version]).read_text().split()
    except OSError:
        return []


def kind_of(printed: str) -> Kind:
    """Read ``iptables --version``: ``iptables v1.8.9 (nf_tables)``; before 1.8 all are legacy."""
    return "nf_tables" if re.search(r"\(nf_tables\)", printed) else "legacy"


async def command(programs: Programs, version: int, kind: Kind) -> str | None:
    """Give the name of the program of a kind (its ``-save`` is meant, too); None without one."""
    plain = PROGRAM[version]
    named = f"{plain}-{_SUFFIX[kind]}"
    if programs.has(f"{plain}-save") and programs.has(plain):
        printed = (await programs.run([plain, "--version"])).output
        if kind_of(printed) == kind:
            return plain
    return named if programs.has(f"{named}-save") else None

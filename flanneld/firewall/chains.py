"""The chains of a node's packet filters, whichever program made them.  Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.firewall.packet import Condition

Act = Literal["accept", "drop", "jump", "goto", "return", "mark", "translate", "go on", "unknown"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: for which packets, and what becomes of them; ``text`` is as its program spells it.

    ``to`` is the chain of a jump; ``mark`` the bits that are kept, and those that are set then;
    ``targets`` the new targets of a translation, as they are spelled; ``deletion`` is the command
    that would remove the rule.
    """

    text: str
    conditions: tuple[Condition, ...]
    act: Act
    to: str = ""
    mark: tuple[int, int] | None = None
    targets: tuple[str, ...] = ()
    deletion: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that the kernel asks itself: at a hook, in the order of priorities.

    ``kind`` is nft's type ("filter", "nat", "route"); ``device`` that of an ingress or egress hook,
    "" if there is none or it is not known.
    """

    chain: str
    hook: str
    priority: int
    policy: str
    kind: str = "filter"
    device: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one tool: "iptables (nf_tables)", "iptables (legacy)", "ip6tables ...", "nft".

    ``versions`` are the IP versions whose packets it sees; ``command`` is what its rules are
    inserted by.
    """

    tool: str
    name: str
    versions: frozenset[int]
    chains: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    bases: tuple[Base, ...] = ()
    command: str = ""

    def place(self, chain: str) -> str:
        """Say where a chain is."""
        return f"{self.tool}, table {self.name}, chain {chain}"


@dataclass(frozen=True, slots=True)
class Firewall:
    """All tables; ``unknown`` says what could not be read, one sentence each.

    ``verdicts`` are those that were found so far: the same packets are looked at again and again.
    """

    tables: tuple[Table, ...] = ()
    unknown: tuple[str, ...] = ()
    verdicts: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

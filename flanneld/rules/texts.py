"""The traffic rules of a network, in iptables' and in nft's own words.

Pure.  The texts are those of the Go daemon, and spelled as ``iptables-save`` and ``nft list`` print
them, so that what is there can be compared with what should be as text.  One of Go's nftables rules
differs from its iptables counterpart and leaves connections from outside to a peer's pods
unmasqueraded; here both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flanneld.desired import AnyNetwork

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_TRANSLATED = "0x4000"  # the mark of packets that Kubernetes' own rules masquerade


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is done with the packets of one family.

    ``network`` are the pods of all nodes, ``subnet`` those of this one.  ``masquerade``: packets
    between pods and the world get a node's address; ``forward``: a FORWARD policy of DROP does not
    concern pods; ``fully_random``: source ports are not chosen near the pod's own (a race between
    two connections loses one of them otherwise).
    """

    network: AnyNetwork
    subnet: AnyNetwork
    masquerade: bool = True
    forward: bool = True
    fully_random: bool = True

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network.version


# --------------------------------------------------------------------------------------- iptables


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours, and the chain of the kernel's that jumps to it."""

    table: str
    name: str
    base: str
    comment: str

    @property
    def note(self) -> str:
        """The match that marks a rule as ours."""
        return f'-m comment --comment "{self.comment}"'

    @property
    def jump(self) -> str:
        """The rule that leads here."""
        return f"-A {self.base} {self.note} -j {self.name}"


POSTROUTING = Chain("nat", "FLANNEL-POSTRTG", "POSTROUTING", "flanneld masq")
FORWARD = Chain("filter", "FLANNEL-FWD", "FORWARD", "flanneld forward")
CHAINS = (POSTROUTING, FORWARD)


def iptables_rules(traffic: Traffic | None, chain: Chain) -> list[str]:
    """Give the chain's rules; none means that there should be no such chain."""
    if traffic is None:
        return []
    if chain is POSTROUTING:
        return _iptables_masquerade(traffic) if traffic.masquerade else []
    if not traffic.forward:
        return []
    return [
        f"-A {chain.name} {side} {traffic.network} {chain.note} -j ACCEPT" for side in ("-s", "-d")
    ]


def _iptables_masquerade(traffic: Traffic) -> list[str]:
    net, pods = traffic.network, traffic.subnet
    translate = "MASQUERADE --random-fully" if traffic.fully_random else "MASQUERADE"
    matches = [
        (f"-m mark --mark {_TRANSLATED}/{_TRANSLATED}", "RETURN"),
        (f"-s {pods} -d {net}", "RETURN"),
        (f"-s {net} -d {pods}", "RETURN"),
        (f"! -s {net} -d {pods}", "RETURN"),
        (f"-s {net} ! -d {_MULTICAST[traffic.version]}", translate),
        (f"! -s {net} -d {net}", translate),
    ]
    chain = POSTROUTING
    return [f"-A {chain.name} {match} {chain.note} -j {target}" for match, target in matches]


# --------------------------------------------------------------------------------------- nftables

FAMILY = {4: "ip", 6: "ip6"}
TABLE = {4: "flannel-ipv4", 6: "flannel-ipv6"}


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain of our table and where it is hooked in; ``priority_word`` is nft's for the number."""

    name: str
    type: str
    hook: str
    priority: int
    priority_word: str
    comment: str


POSTRTG = BaseChain(
    "postrtg",
    "nat",
    "postrouting",
    100,
    "srcnat",
    "chain to manage traffic masquerading by flannel",
)
FORWARDING = BaseChain(
    "forward", "filter", "forward", 0, "filter", "chain to accept flannel traffic"
)
BASE_CHAINS = (POSTRTG, FORWARDING)


def nft_rules(traffic: Traffic | None) -> dict[BaseChain, list[str]]:
    """Give the chains that the family's table should have, with their rules."""
    if traffic is None:
        return {}
    ip, net, pods = FAMILY[traffic.version], traffic.network, traffic.subnet
    translate = "masquerade fully-random" if traffic.fully_random else "masquerade"
    chains = {}
    if traffic.masquerade:
        chains[POSTRTG] = [
            f"meta mark {_TRANSLATED} return",
            f"{ip} saddr {pods} {ip} daddr {net} return",
            f"{ip} saddr {net} {ip} daddr {pods} return",
            f"{ip} saddr != {net} {ip} daddr {pods} return",
            f"{ip} saddr {net} {ip} daddr != {_MULTICAST[traffic.version]} {translate}",
            f"{ip} saddr != {net} {ip} daddr {net} {translate}",
        ]
    if traffic.forward:
        chains[FORWARDING] = [f"{ip} saddr {net} accept", f"{ip} daddr {net} accept"]
    return chains


def nft_script(version: int, chains: Mapping[BaseChain, Sequence[str]]) -> str:
    """Write the transaction that replaces the family's table; without chains there is none after.

    Deleting a table that may not be there needs it to be declared first.
    """
    where = f"{FAMILY[version]} {TABLE[version]}"
    lines = [f"add table {where}", f"delete table {where}"]
    if chains:
        lines.append(f'add table {where} {{ comment "rules for {TABLE[version]}" ; }}')
    for chain, rules in chains.items():
        lines.append(
            f"add chain {where} {chain.name} {{ type {chain.type} hook {chain.hook} "
            f'priority {chain.priority_word}; policy accept; comment "{chain.comment}" ; }}'
        )
        lines += [f"add rule {where} {chain.name} {rule}" for rule in rules]
    return "\n".join([*lines, ""])

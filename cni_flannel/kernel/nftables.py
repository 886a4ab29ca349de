"""Masquerading written by `nft -f -`: one transaction, of only what is missing.

The rules are the reference plugins' own, in table inet cni_plugins_masquerade: one rule per
address in chain masq_checks, whose comment begins with a hash of the attachment; a base chain
postrouting leads there past multicast. What is there is read through nfnl, without a process.

Only missing parts are written: declaring a base chain again, flushing a chain or deleting a
rule each wait for a kernel grace period of 10 to 15 ms, adding a rule does not.

Imports cni.wire, kernel.nfnl, kernel.programs, kernel.rulenames.
"""

from __future__ import annotations

from cni import wire
from cni_flannel.kernel import nfnl, programs, rulenames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    from cni.cidr import Prefix

TABLE = rulenames.NFT_MASQ_TABLE
CHAIN = rulenames.NFT_MASQ_CHAIN
_BASE = "postrouting"
_BASE_RULES = ("ip daddr == 224.0.0.0/4 return", "ip6 daddr == ff00::/8 return", f"goto {CHAIN}")
_TABLE_COMMENT = "Masquerading for plugins from github.com/containernetworking/plugins"
_CHAIN_COMMENT = (
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
)
_IP = {4: "ip", 6: "ip6"}
_ATTEMPTS = 5


def setup(
    network: str,
    container_id: str,
    ifname: str,
    prefixes: Sequence[Prefix],
    environ: Mapping[str, str],
) -> None:
    """Masquerade what the prefixes' addresses send beyond their own networks. Idempotent.

    Rules that the attachment has from before are replaced, as the reference plugin does.
    """
    ours = rulenames.nft_attachment(network, container_id, ifname)
    comment = rulenames.nft_comment(network, container_id, ifname)
    rules = _add_rules(prefixes, comment)

    def changes(ruleset: nfnl.Ruleset) -> list[str]:
        stale = ruleset.rules(nfnl.NFPROTO_INET, TABLE, CHAIN, ours)
        base = [] if _has_base(ruleset) else _declare_base()
        return [*base, *_delete_rules(stale), *rules]

    _commit(f"set up masquerading in table inet {TABLE}", changes, environ)


def teardown(network: str, container_id: str, ifname: str, environ: Mapping[str, str]) -> None:
    """Take away the attachment's rules, whatever their addresses; none is success."""
    _remove(rulenames.nft_attachment(network, container_id, ifname), frozenset(), environ)


def collect(network: str, valid: Iterable[tuple[str, str]], environ: Mapping[str, str]) -> None:
    """Take away the network's rules, but not those of valid (container ID, ifname)."""
    living = frozenset(rulenames.nft_attachment(network, *attachment) for attachment in valid)
    _remove(rulenames.nft_network(network) + "-", living, environ)


def _remove(prefix: str, living: Collection[str], environ: Mapping[str, str]) -> None:
    """Take away the rules whose comment begins so and whose attachment does not live."""
    if not programs.find("nft", environ):
        return

    def changes(ruleset: nfnl.Ruleset) -> list[str]:
        rules = ruleset.rules(nfnl.NFPROTO_INET, TABLE, CHAIN, prefix)
        size = rulenames.NFT_ATTACHMENT_SIZE
        return _delete_rules(rule for rule in rules if rule.comment[:size] not in living)

    _commit(f"remove masquerading from table inet {TABLE}", changes, environ)


def missing(
    network: str,
    container_id: str,
    ifname: str,
    prefixes: Sequence[Prefix],
    environ: Mapping[str, str],
) -> list[str]:
    """Say which rules are not there, one sentence each."""
    if not programs.find("nft", environ):
        return ["nft is not installed, so nothing masquerades"]
    ours = rulenames.nft_attachment(network, container_id, ifname)
    base, present = [], []
    for rule in _listed(environ):
        if rule.get("chain") == _BASE:
            base.append(_text(rule))
        elif rule.get("chain") == CHAIN and str(rule.get("comment", "")).startswith(ours):
            present.append(_text(rule))
    sentences = []
    if base != list(_BASE_RULES):
        sentences.append(f"nftables chain inet {TABLE} {_BASE} is missing or was changed")
    sentences += [
        f"nftables rule is missing from chain inet {TABLE} {CHAIN}: {text}"
        for text in map(_masquerading, prefixes)
        if text not in present
    ]
    return sentences


def _masquerading(prefix: Prefix) -> str:
    """Write the rule of one address in nft's words, as _text reads it back."""
    ip, network = _IP[prefix.family], prefix.network
    whole = network.length == network.address.bits  # nft lists such a network as an address
    beyond = str(network.address) if whole else str(network)
    return f"{ip} saddr == {prefix.address} {ip} daddr != {beyond} masquerade"


def _add_rules(prefixes: Iterable[Prefix], comment: str) -> list[str]:
    return [
        f'add rule inet {TABLE} {CHAIN} {_masquerading(prefix)} comment "{comment}"'
        for prefix in dict.fromkeys(prefixes)
    ]


def _delete_rules(rules: Iterable[nfnl.Rule]) -> list[str]:
    return [f"delete rule inet {TABLE} {CHAIN} handle {rule.handle}" for rule in rules]


def _has_base(ruleset: nfnl.Ruleset) -> bool:
    """Whether the base chain leads to the masquerade chain; its rules are counted, not read."""
    rules = ruleset.rules(nfnl.NFPROTO_INET, TABLE, _BASE)
    return len(rules) == len(_BASE_RULES) and ruleset.has_chain(nfnl.NFPROTO_INET, TABLE, CHAIN)


def _declare_base() -> list[str]:
    """Declare table and chains; the flush makes one set of rules of two first setups at once."""
    return [
        f'add table inet {TABLE} {{ comment "{_TABLE_COMMENT}" ; }}',
        f'add chain inet {TABLE} {CHAIN} {{ comment "{_CHAIN_COMMENT}" ; }}',
        f"add chain inet {TABLE} {_BASE} {{ type nat hook postrouting priority 100 ; }}",
        f"flush chain inet {TABLE} {_BASE}",
        *(f"add rule inet {TABLE} {_BASE} {rule}" for rule in _BASE_RULES),
    ]


def _commit(
    what: str, changes: Callable[[nfnl.Ruleset], list[str]], environ: Mapping[str, str]
) -> None:
    """Read, then write what `changes` makes of it; again when a rule went in between."""
    with nfnl.Ruleset() as ruleset:
        lines = changes(ruleset)
        for attempt in range(_ATTEMPTS):
            if not lines:
                return
            nft = programs.locate("nft", environ)
            done = programs.run([nft, "-f", "-"], environ, stdin="\n".join([*lines, ""]))
            if done.status == 0:
                return
            before, lines = lines, changes(ruleset)
            if lines == before or attempt == _ATTEMPTS - 1:
                raise programs.failure(what, "nft", done)


def _listed(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the table's rules as nft describes them in JSON; none when it is missing."""
    with nfnl.Ruleset() as ruleset:
        if not ruleset.has_chain(nfnl.NFPROTO_INET, TABLE, CHAIN):
            return []
    nft = programs.locate("nft", environ)
    done = programs.run([nft, "-j", "list", "table", "inet", TABLE], environ)
    if done.status:
        raise programs.failure(f"list table inet {TABLE}", "nft", done)
    return [item["rule"] for item in wire.loads(done.stdout)["nftables"] if "rule" in item]


def _text(rule: Mapping[str, Any]) -> str:
    """Put a listed rule into nft's words."""
    return " ".join(_statement(*item) for part in rule["expr"] for item in part.items())


def _statement(name: str, value: Any) -> str:
    if name == "goto":
        return f"goto {value['target']}"
    if name != "match" or "payload" not in value["left"]:
        return name
    left, right = value["left"]["payload"], value["right"]
    if isinstance(right, dict) and "prefix" in right:
        right = f"{right['prefix']['addr']}/{right['prefix']['len']}"
    return f"{left['protocol']} {left['field']} {value['op']} {right}"

"""macspoofchk: frames that leave a pod with another MAC than its own are dropped at the bridge.

The rules, in nftables table bridge nat, are the reference plugins' own (pkg/link spoofcheck):
PREROUTING jumps, for frames from the host veth, to a chain of the attachment, and that to a
second one, which lets the pod's MAC return and drops the rest. Every rule carries the
attachment's comment, so that teardown needs neither veth nor MAC.

Works in the calling thread's network namespace. Rules are written as JSON through
`nft -j -f -`, because an interface name may hold characters that nft's own language refuses.

Imports cni.errors, cni.wire, kernel.nfnl, kernel.programs, kernel.rulenames.
"""

from __future__ import annotations

from cni import wire
from cni.errors import INVALID_ENVIRONMENT, CNIError
from cni_flannel.kernel import nfnl, programs, rulenames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.process import Completed

    Command = dict[str, Any]

_FAMILY = "bridge"
_TABLE = "nat"
_BASE = "PREROUTING"
_PRIORITY = -300  # NF_BR_PRI_NAT_DST_BRIDGED (linux/netfilter_bridge.h)
_ATTEMPTS = 5


class _Names:
    """The two chains of an attachment and the comment of its rules."""

    __slots__ = ("comment", "iface", "mac")

    def __init__(self, container_id: str, ifname: str) -> None:
        reference = f"{container_id}-{ifname}"
        self.iface = f"cni-br-iface-{reference}"
        self.mac = f"{self.iface}-mac"
        self.comment = f"macspoofchk-{reference}"


def setup(
    host_ifname: str, mac: str, container_id: str, ifname: str, environ: Mapping[str, str]
) -> None:
    """Let frames from the host veth pass only with this MAC. Idempotent: older rules go."""
    names = _Names(container_id, ifname)
    if len(names.mac.encode()) > rulenames.NFT_CHAIN_MAX:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f'macspoofchk: container ID "{container_id}" is too long for an nftables chain name',
            "use a container ID of 94 characters or fewer, or turn macspoofchk off",
        )
    what = f'set up macspoofchk of "{host_ifname}"'
    for attempt in range(_ATTEMPTS):
        stale = _stale(names)
        changes = [*_declare(names), *stale, *_rules(names, host_ifname, mac)]
        done = _apply(changes, environ)
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1 or _stale(names) == stale:
            raise programs.failure(what, "nft", done)


def teardown(container_id: str, ifname: str, environ: Mapping[str, str]) -> None:
    """Take away the attachment's rules and chains; none, or no nft, is success."""
    names = _Names(container_id, ifname)
    for attempt in range(_ATTEMPTS):
        doomed = _doomed(names)
        if not doomed or not programs.find("nft", environ):
            return
        done = _apply(doomed, environ)
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1 or _doomed(names) == doomed:
            raise programs.failure(f"remove macspoofchk of {names.comment}", "nft", done)


def verify(
    host_ifname: str, mac: str, container_id: str, ifname: str, environ: Mapping[str, str]
) -> list[str]:
    """Say which rules are missing, one sentence each."""
    if not programs.find("nft", environ):
        return ["nft is not installed, so macspoofchk is not in force"]
    names = _Names(container_id, ifname)
    present = _listed(names, environ)
    wanted = [command["add"]["rule"] for command in _rules(names, host_ifname, mac)]
    expected: dict[str, list[Any]] = {}
    for rule in wanted:
        expected.setdefault(rule["chain"], []).append(rule["expr"])
    return [
        f"nftables chain bridge nat {chain} lacks the macspoofchk rules of {host_ifname}"
        for chain, rules in expected.items()
        if present.get(chain, []) != rules
    ]


def _chain(name: str, **attributes: object) -> Command:
    return {"chain": {"family": _FAMILY, "table": _TABLE, "name": name, **attributes}}


def _rule(chain: str, **attributes: object) -> Command:
    return {"rule": {"family": _FAMILY, "table": _TABLE, "chain": chain, **attributes}}


def _declare(names: _Names) -> list[Command]:
    """Declare table and chains, and empty the attachment's two."""
    base = []
    with nfnl.Ruleset() as ruleset:
        if not ruleset.has_chain(nfnl.NFPROTO_BRIDGE, _TABLE, _BASE):
            hook = {"type": "filter", "hook": "prerouting", "prio": _PRIORITY, "policy": "accept"}
            table = {"table": {"family": _FAMILY, "name": _TABLE}}
            base = [{"add": table}, {"add": _chain(_BASE, **hook)}]
    own = (_chain(names.iface), _chain(names.mac))
    return [*base, *({"add": chain} for chain in own), *({"flush": chain} for chain in own)]


def _rules(names: _Names, host_ifname: str, mac: str) -> list[Command]:
    def rule(chain: str, *statements: Command) -> Command:
        return {"add": _rule(chain, expr=list(statements), comment=names.comment)}

    iifname = {"meta": {"key": "iifname"}}
    source = {"payload": {"protocol": "ether", "field": "saddr"}}
    return [
        rule(_BASE, _match(iifname, host_ifname), {"jump": {"target": names.iface}}),
        rule(names.iface, {"jump": {"target": names.mac}}),
        rule(names.mac, _match(source, mac.lower()), {"return": None}),
        rule(names.mac, {"drop": None}),
    ]


def _match(left: Command, right: str) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _stale(names: _Names) -> list[Command]:
    """Return the deletions of the attachment's jumps in PREROUTING."""
    with nfnl.Ruleset() as ruleset:
        rules = ruleset.rules(nfnl.NFPROTO_BRIDGE, _TABLE, _BASE, names.comment)
    return [
        {"delete": _rule(_BASE, handle=rule.handle)}
        for rule in rules
        if rule.comment == names.comment
    ]


def _doomed(names: _Names) -> list[Command]:
    """Return what takes away everything of the attachment that there is."""
    jumps = _stale(names)
    with nfnl.Ruleset() as ruleset:
        chains = [
            _chain(name)
            for name in (names.iface, names.mac)
            if ruleset.has_chain(nfnl.NFPROTO_BRIDGE, _TABLE, name)
        ]
    # emptied first: the first chain's jump would keep the second one
    return [
        *jumps,
        *({"flush": chain} for chain in chains),
        *({"delete": chain} for chain in chains),
    ]


def _apply(commands: list[Command], environ: Mapping[str, str]) -> Completed:
    """Run the commands as one transaction."""
    nft = programs.locate("nft", environ)
    text = wire.dumps({"nftables": commands})
    return programs.run([nft, "-j", "-f", "-"], environ, stdin=text)


def _listed(names: _Names, environ: Mapping[str, str]) -> dict[str, list[Any]]:
    """Map the chains to the statements of the attachment's rules in them."""
    with nfnl.Ruleset() as ruleset:
        if not ruleset.has_chain(nfnl.NFPROTO_BRIDGE, _TABLE, names.iface):
            return {}
    nft = programs.locate("nft", environ)
    done = programs.run([nft, "-j", "list", "table", _FAMILY, _TABLE], environ)
    if done.status:
        raise programs.failure("list table bridge nat", "nft", done)
    found: dict[str, list[Any]] = {}
    for item in wire.loads(done.stdout)["nftables"]:
        rule = item.get("rule")
        if rule and rule.get("comment") == names.comment:
            found.setdefault(rule["chain"], []).append(rule["expr"])
    return found

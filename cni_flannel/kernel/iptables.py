"""Masquerading written by iptables-restore: one transaction per address family.

The rules, in table nat, are the reference plugins' own: a chain per container that lets traffic
to its own subnet pass and masquerades the rest except multicast, and one jump to it per address
in POSTROUTING. A jump cannot exist without its chain, and both come and go in one transaction:
no chain means nothing to take away.

The chain's name has the container and the network in it but no interface name (for the sake of
old rules), so two interfaces of a container on one network share it.

Imports kernel.programs, kernel.rulenames.
"""

from __future__ import annotations

from cni_flannel.kernel import programs, rulenames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cni.cidr import Address, Prefix
    from cni.process import Completed

PROGRAM = {4: "iptables", 6: "ip6tables"}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_HOST = {4: 32, 6: 128}
_WAIT = ("-w", "30")  # seconds for the xtables lock; runtimes give a call minutes
_ATTEMPTS = 5


class Rules:
    """The rules of one container in one family, as iptables prints them."""

    __slots__ = ("accepts", "chain", "jumps", "masquerade")

    def __init__(self, network: str, container_id: str, prefixes: Sequence[Prefix]) -> None:
        """Take prefixes of one family, host bits kept; at least one."""
        self.chain = rulenames.chain(network, container_id)
        words = rulenames.quoted(rulenames.comment(network, container_id))
        note = f"-m comment --comment {words}"
        family = prefixes[0].family
        self.accepts = _once(
            f"-A {self.chain} -d {prefix.network} {note} -j ACCEPT" for prefix in prefixes
        )
        self.masquerade = f"-A {self.chain} ! -d {_MULTICAST[family]} {note} -j MASQUERADE"
        self.jumps = _once(
            f"-A POSTROUTING -s {prefix.address}/{_HOST[family]} {note} -j {self.chain}"
            for prefix in prefixes
        )

    def all(self) -> list[str]:
        """Return every rule, in the order in which they are appended."""
        return [*self.accepts, self.masquerade, *self.jumps]


def _once(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def by_family(prefixes: Iterable[Prefix]) -> list[list[Prefix]]:
    """Part prefixes into those of IPv4 and those of IPv6, leaving out an empty part."""
    kept = list(prefixes)
    parts = [[prefix for prefix in kept if prefix.family == family] for family in PROGRAM]
    return [part for part in parts if part]


def setup(
    network: str, container_id: str, prefixes: Sequence[Prefix], environ: Mapping[str, str]
) -> None:
    """Masquerade what the prefixes' addresses send beyond their own networks. Idempotent."""
    for part in by_family(prefixes):
        _setup_family(Rules(network, container_id, part), part[0].family, environ)


def _setup_family(rules: Rules, family: int, environ: Mapping[str, str]) -> None:
    """Write the rules, in one process when the container has no chain yet."""
    fresh = _restore(family, [f"-N {rules.chain}", *rules.all()], environ)
    for _ in range(_ATTEMPTS):
        if fresh.status == 0:
            return
        present = _chain_rules(family, rules.chain, environ)
        if present is None:  # so that was not the reason
            break
        present += _postrouting(family, environ)
        changes = [
            *(_at_the_top(rule) for rule in rules.accepts if rule not in present),
            *(rule for rule in (rules.masquerade, *rules.jumps) if rule not in present),
        ]
        if not changes:
            return
        fresh = _restore(family, changes, environ)
    raise programs.failure(
        f"set up masquerading in chain {rules.chain}", f"{PROGRAM[family]}-restore", fresh
    )


def _at_the_top(rule: str) -> str:
    """Insert an appended rule instead: behind the masquerading it would never be reached."""
    _, chain, rest = rule.split(" ", 2)
    return f"-I {chain} 1 {rest}"


def teardown(
    family: int,
    chain: str,
    environ: Mapping[str, str],
    addresses: Sequence[Address] | None = None,
    *,
    seen: bool = False,
) -> None:
    """Take away the chain and all jumps to it; a missing program or chain is success.

    With addresses, take away their jumps only, and the chain when no jump is left. `seen` saves
    the question whether there is such a chain.
    """
    if not programs.find(PROGRAM[family], environ):
        return
    if not seen and _chain_rules(family, chain, environ) is None:
        return
    for attempt in range(_ATTEMPTS):
        jumps = [line for line in _postrouting(family, environ) if line.endswith(f" -j {chain}")]
        if not jumps and _chain_rules(family, chain, environ) is None:
            return
        doomed = jumps
        if addresses is not None:
            sources = [f"-A POSTROUTING -s {address}/{_HOST[family]} " for address in addresses]
            doomed = [line for line in jumps if line.startswith(tuple(sources))]
        if not doomed and jumps:
            return
        gone = [chain] if len(doomed) == len(jumps) else []
        done = _restore(family, _removal(gone, doomed), environ)
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1:  # every time another teardown was faster, or it is refused
            raise programs.failure(
                f"remove masquerading chain {chain}", f"{PROGRAM[family]}-restore", done
            )


def missing(
    network: str, container_id: str, prefixes: Sequence[Prefix], environ: Mapping[str, str]
) -> list[str]:
    """Say which rules are not there, one sentence each."""
    sentences = []
    for part in by_family(prefixes):
        family, rules = part[0].family, Rules(network, container_id, part)
        if not programs.find(PROGRAM[family], environ):
            sentences.append(
                f"{PROGRAM[family]} is not installed, so nothing masquerades {part[0]}"
            )
            continue
        present = _chain_rules(family, rules.chain, environ)
        if present is None:
            sentences.append(f"{PROGRAM[family]} chain {rules.chain} of table nat is missing")
            continue
        present += _postrouting(family, environ)
        sentences += [
            f"{PROGRAM[family]} rule is missing from table nat: {rule}"
            for rule in rules.all()
            if rule not in present
        ]
    return sentences


def collect(family: int, network: str, living: Collection[str], environ: Mapping[str, str]) -> None:
    """Take away the network's chains, with all jumps to them, but not the living chains.

    However many they are, it is one transaction.
    """
    if not programs.find(PROGRAM[family], environ):
        return
    for attempt in range(_ATTEMPTS):
        listed = _list(family, (), environ)
        doomed = [chain for chain in chains_of(listed, network) if chain not in living]
        if not doomed:
            return
        targets = tuple(f" -j {chain}" for chain in doomed)
        jumps = [line for line in listed if line.endswith(targets)]
        done = _restore(family, _removal(doomed, jumps), environ)
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1:
            raise programs.failure(
                f'remove stale masquerading of "{network}"', f"{PROGRAM[family]}-restore", done
            )


def chains_of(listed: Iterable[str], network: str) -> list[str]:
    """Find in listed rules the chains that belong to the network, by the comments.

    A chain whose name is not the hash of what the comment says is not ours and left out.
    """
    begin = rulenames.quoted(f'name: "{network}" id: "')[:-1]
    chains = []
    for line in listed:
        _, at, rest = line.partition(f" --comment {begin}")
        if not at:
            continue
        chain = rulenames.chain(network, rest.partition('\\"')[0])
        if line.startswith(f"-A {chain} ") or line.endswith(f" -j {chain}"):
            chains.append(chain)
    return _once(chains)


def _removal(chains: Iterable[str], jumps: Iterable[str]) -> list[str]:
    """Write the end of chains: emptied (and so made sure of), left by all jumps, deleted."""
    kept = list(chains)
    return [
        *(f":{chain} - [0:0]" for chain in kept),
        *("-D" + line[2:] for line in jumps),
        *(f"-X {chain}" for chain in kept),
    ]


def usable(environ: Mapping[str, str]) -> bool:
    """Whether iptables can be used at all, by the reference plugin's test: list filter INPUT."""
    path = programs.find("iptables", environ)
    if not path:
        return False
    return programs.run([path, *_WAIT, "-t", "filter", "-S", "INPUT"], environ).status == 0


def _restore(family: int, changes: Sequence[str], environ: Mapping[str, str]) -> Completed:
    """Apply changes to table nat, all or none."""
    program = programs.locate(f"{PROGRAM[family]}-restore", environ)
    text = "\n".join(["*nat", *changes, "COMMIT", ""])
    return programs.run([program, "--noflush", *_WAIT], environ, stdin=text)


def _run_list(family: int, chain: Sequence[str], environ: Mapping[str, str]) -> Completed:
    program = programs.locate(PROGRAM[family], environ)
    return programs.run([program, *_WAIT, "-t", "nat", "-S", *chain], environ)


def _list(family: int, chain: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return rules as iptables prints them, of one chain or of the whole table nat."""
    done = _run_list(family, chain, environ)
    if done.status:
        raise programs.failure("list the rules of table nat", PROGRAM[family], done)
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def _postrouting(family: int, environ: Mapping[str, str]) -> list[str]:
    """Return the rules of POSTROUTING; that chain alone, because kube-proxy's are many."""
    return _list(family, ("POSTROUTING",), environ)


def _chain_rules(family: int, chain: str, environ: Mapping[str, str]) -> list[str] | None:
    """Return the rules of a chain of ours, None when it does not exist.

    Absence has status 1 and a text that depends on the version: "No chain/target/match by that
    name", or (1.8.9) that the chain, by its name, is incompatible.
    """
    done = _run_list(family, (chain,), environ)
    if done.status == 0:
        return done.stdout.decode("utf-8", "surrogateescape").splitlines()
    text = done.stderr.decode("utf-8", "replace")
    if done.status == 1 and (chain in text or "no chain" in text.lower()):
        return None
    raise programs.failure(f"list chain {chain}", PROGRAM[family], done)

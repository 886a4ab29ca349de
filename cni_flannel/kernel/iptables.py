"""Masquerading written by iptables-restore: one transaction per address family.

The rules, in table nat, are the reference plugins' own: a chain per container that lets traffic
to its own subnet pass and masquerades the rest except multicast, and one jump to it per address
in POSTROUTING. A jump cannot exist without its chain, and both come and go in one transaction:
no chain means nothing to take away.

The chain's name has the container and the network in it but no interface name (for the sake of
old rules), so two interfaces of a container on one network share it.

The same program exists twice, writing to nftables or to the older tables: which one `iptables`
is may change while a container lives. Each is also there under a name of its own.

Imports kernel.programs, kernel.rulenames.
"""

from __future__ import annotations

from cni_flannel.kernel import programs, rulenames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cni.cidr import Address, Prefix
    from cni.errors import CNIError
    from cni.process import Completed

_PROGRAM = {4: "iptables", 6: "ip6tables"}
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
    parts = [[prefix for prefix in kept if prefix.family == family] for family in _PROGRAM]
    return [part for part in parts if part]


class Tool:
    """iptables of one family: the one that is in use, or that of a kind where it has a name."""

    __slots__ = ("_environ", "family", "name")

    def __init__(self, family: int, environ: Mapping[str, str], kind: str = "") -> None:
        """`kind` is "nft", "legacy", or neither."""
        own = f"{_PROGRAM[family]}-{kind}"
        self.family = family
        self.name = own if kind and programs.find(own, environ) else _PROGRAM[family]
        self._environ = environ

    @property
    def is_installed(self) -> bool:
        """Whether there is such a program."""
        return bool(programs.find(self.name, self._environ))

    def restore(self, changes: Sequence[str]) -> Completed:
        """Apply changes to table nat, all or none."""
        program = programs.locate(f"{self.name}-restore", self._environ)
        text = "\n".join(["*nat", *changes, "COMMIT", ""])
        return programs.run([program, "--noflush", *_WAIT], self._environ, stdin=text)

    def rules(self, *chain: str) -> list[str]:
        """Return rules as iptables prints them, of one chain or of the whole table nat."""
        done = self._run_list(*chain)
        if done.status:
            raise programs.failure("list the rules of table nat", self.name, done)
        return done.stdout.decode("utf-8", "surrogateescape").splitlines()

    def postrouting(self) -> list[str]:
        """Return the rules of POSTROUTING; that chain alone, because kube-proxy's are many."""
        return self.rules("POSTROUTING")

    def chain_rules(self, chain: str) -> list[str] | None:
        """Return the rules of a chain of ours, None when it does not exist.

        Absence has status 1 and a text that depends on the version: "No chain/target/match by that
        name", or (1.8.9) that the chain, by its name, is incompatible.
        """
        done = self._run_list(chain)
        if done.status == 0:
            return done.stdout.decode("utf-8", "surrogateescape").splitlines()
        text = done.stderr.decode("utf-8", "replace")
        if done.status == 1 and (chain in text or "no chain" in text.lower()):
            return None
        raise programs.failure(f"list chain {chain}", self.name, done)

    def failure(self, what: str, done: Completed) -> CNIError:
        """Make the error of changes that were refused."""
        return programs.failure(what, f"{self.name}-restore", done)

    def _run_list(self, *chain: str) -> Completed:
        program = programs.locate(self.name, self._environ)
        return programs.run([program, *_WAIT, "-t", "nat", "-S", *chain], self._environ)


def setup(
    network: str, container_id: str, prefixes: Sequence[Prefix], environ: Mapping[str, str]
) -> None:
    """Masquerade what the prefixes' addresses send beyond their own networks. Idempotent."""
    for part in by_family(prefixes):
        _setup_family(Rules(network, container_id, part), Tool(part[0].family, environ))


def _setup_family(rules: Rules, tool: Tool) -> None:
    """Write the rules, in one process when the container has no chain yet."""
    fresh = tool.restore([f"-N {rules.chain}", *rules.all()])
    for _ in range(_ATTEMPTS):
        if fresh.status == 0:
            return
        present = tool.chain_rules(rules.chain)
        if present is None:  # so that was not the reason
            break
        present += tool.postrouting()
        changes = [
            *(_at_the_top(rule) for rule in rules.accepts if rule not in present),
            *(rule for rule in (rules.masquerade, *rules.jumps) if rule not in present),
        ]
        if not changes:
            return
        fresh = tool.restore(changes)
    raise tool.failure(f"set up masquerading in chain {rules.chain}", fresh)


def _at_the_top(rule: str) -> str:
    """Insert an appended rule instead: behind the masquerading it would never be reached."""
    _, chain, rest = rule.split(" ", 2)
    return f"-I {chain} 1 {rest}"


def teardown(
    tool: Tool, chain: str, addresses: Sequence[Address] | None = None, *, seen: bool = False
) -> None:
    """Take away the chain and all jumps to it; a missing program or chain is success.

    With addresses, take away their jumps only, and the chain when no jump is left. `seen` saves
    the question whether there is such a chain.
    """
    if not tool.is_installed or (not seen and tool.chain_rules(chain) is None):
        return
    for attempt in range(_ATTEMPTS):
        jumps = [line for line in tool.postrouting() if line.endswith(f" -j {chain}")]
        if not jumps and tool.chain_rules(chain) is None:
            return
        doomed = jumps
        if addresses is not None:
            own = [f"-A POSTROUTING -s {one}/{_HOST[tool.family]} " for one in addresses]
            doomed = [line for line in jumps if line.startswith(tuple(own))]
        if not doomed and jumps:
            return
        gone = [chain] if len(doomed) == len(jumps) else []
        done = tool.restore(_removal(gone, doomed))
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1:  # every time another teardown was faster, or it is refused
            raise tool.failure(f"remove masquerading chain {chain}", done)


def missing(
    network: str, container_id: str, prefixes: Sequence[Prefix], environ: Mapping[str, str]
) -> list[str]:
    """Say which rules are not there, one sentence each."""
    sentences = []
    for part in by_family(prefixes):
        tool, rules = Tool(part[0].family, environ), Rules(network, container_id, part)
        if not tool.is_installed:
            sentences.append(f"{tool.name} is not installed, so nothing masquerades {part[0]}")
            continue
        present = tool.chain_rules(rules.chain)
        if present is None:
            sentences.append(f"{tool.name} chain {rules.chain} of table nat is missing")
            continue
        present += tool.postrouting()
        sentences += [
            f"{tool.name} rule is missing from table nat: {rule}"
            for rule in rules.all()
            if rule not in present
        ]
    return sentences


def collect(tool: Tool, network: str, living: Collection[str]) -> None:
    """Take away the network's chains, with all jumps to them, but not the living chains.

    However many they are, it is one transaction.
    """
    if not tool.is_installed:
        return
    for attempt in range(_ATTEMPTS):
        listed = tool.rules()
        doomed = [chain for chain in chains_of(listed, network) if chain not in living]
        if not doomed:
            return
        targets = tuple(f" -j {chain}" for chain in doomed)
        jumps = [line for line in listed if line.endswith(targets)]
        done = tool.restore(_removal(doomed, jumps))
        if done.status == 0:
            return
        if attempt == _ATTEMPTS - 1:
            raise tool.failure(f'remove stale masquerading of "{network}"', done)


def chains_of(listed: Iterable[str], network: str) -> list[str]:
    """Find in listed rules the chains that belong to the network, by the comments.

    A chain whose name is not the hash of what the comment says is not ours and left out. Of long
    names the comment does not say all: there the network must do.
    """
    begin = rulenames.quoted(f'name: "{network}" id: "')[:-1]
    chains = []
    for line in listed:
        _, at, rest = line.partition(f" --comment {begin}")
        container_id, ends, _ = rest.partition('\\"')
        words = line.split()
        named = [word for word in (words[1], words[-1]) if rulenames.is_chain(word)] if at else []
        if named and (not ends or named == [rulenames.chain(network, container_id)]):
            chains += named
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

"""The door to masquerading: which backend, both of them at teardown, what CHECK and GC ask.

Each function works in the network namespace of the calling thread, keeps no state, and reads
neither the environment nor the configuration: the backend's name and `environ` are given.
Rules are the reference bridge plugin's own (pkg/ip ipmasq), so that either implementation
cleans up after the other.

Imports the protocol package, kernel.nfnl, kernel.rulenames; iptables and nftables only when
something is to be written, so that a teardown with nothing to do costs a tenth of a millisecond.
"""

from __future__ import annotations

from cni import files
from cni.errors import INVALID_NETWORK_CONFIG, KERNEL_REFUSED, CNIError, combine
from cni_flannel.kernel import nfnl, rulenames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cni.cidr import Prefix

IPTABLES = "iptables"
NFTABLES = "nftables"

_NFT, _LEGACY = "nft", "legacy"  # the two kinds of iptables
_NFPROTO = {4: nfnl.NFPROTO_IPV4, 6: nfnl.NFPROTO_IPV6}
_LEGACY_TABLES = {
    4: "/proc/thread-self/net/ip_tables_names",
    6: "/proc/thread-self/net/ip6_tables_names",
}


def setup(  # noqa: PLR0917 - every backend needs all of them
    backend: str | None,
    network: str,
    container_id: str,
    ifname: str,
    prefixes: Sequence[Prefix],
    environ: Mapping[str, str],
) -> None:
    """Masquerade what the attachment sends beyond its own networks.

    `prefixes` are its addresses with their lengths. Without a backend it is iptables, unless
    that cannot be used and nftables can. Idempotent; on any failure nothing stays.
    """
    check_backend(backend)
    if not prefixes:
        return
    try:
        _setup(backend, network, container_id, ifname, prefixes, environ)
    except BaseException:
        try:
            teardown(network, container_id, ifname, environ, prefixes)
        except CNIError:
            pass  # the first error says more
        raise


def check_backend(backend: str | None) -> None:
    """Raise the reference plugin's error for a backend that does not exist."""
    if backend not in {None, IPTABLES, NFTABLES}:
        raise CNIError(
            INVALID_NETWORK_CONFIG,
            f'unknown ipmasq backend "{backend}"',
            'ipMasqBackend is "iptables" or "nftables"',
        )


def _setup(  # noqa: PLR0917
    backend: str | None,
    network: str,
    container_id: str,
    ifname: str,
    prefixes: Sequence[Prefix],
    environ: Mapping[str, str],
) -> None:
    from cni_flannel.kernel import iptables, nftables, programs

    chosen = backend or _installed(environ)
    if chosen == NFTABLES:
        nftables.setup(network, container_id, ifname, prefixes, environ)
        return
    try:
        iptables.setup(network, container_id, prefixes, environ)
    except CNIError:
        # only now is it worth a process to ask whether iptables works here at all
        if backend or not programs.find("nft", environ) or iptables.usable(environ):
            raise
        nftables.setup(network, container_id, ifname, prefixes, environ)


def _installed(environ: Mapping[str, str]) -> str:
    """Choose a backend by what is installed, without running it."""
    from cni_flannel.kernel import programs

    if programs.find("iptables", environ):
        return IPTABLES
    if programs.find("nft", environ):
        return NFTABLES
    raise CNIError(
        KERNEL_REFUSED,
        "set up masquerading: neither iptables nor nft is installed",
        'install iptables or nftables (Debian: apt-get install iptables), or set "ipMasq": false',
    )


def teardown(
    network: str,
    container_id: str,
    ifname: str,
    environ: Mapping[str, str],
    prefixes: Sequence[Prefix] | None = None,
) -> None:
    """Take away the attachment's rules of both backends and families; none is success.

    Needs no addresses. The iptables chain is shared by all interfaces that the container has
    on the network, though, so give `prefixes` when others of them live on: then only these
    addresses' jumps go, and the chain with the last. Every part is tried; the errors come
    together.
    """
    errors: list[CNIError] = []
    chain = rulenames.chain(network, container_id)
    for family, kind in _may_hold(chain):
        from cni_flannel.kernel import iptables  # only now: most teardowns find nothing

        tool = iptables.Tool(family, environ, kind)
        addresses = None
        if prefixes is not None:
            addresses = [prefix.address for prefix in prefixes if prefix.family == family]
        try:
            iptables.teardown(tool, chain, addresses, seen=kind == _NFT)
        except CNIError as error:
            errors.append(error)
    if _may_hold_nftables():
        from cni_flannel.kernel import nftables  # as above

        try:
            nftables.teardown(network, container_id, ifname, environ)
        except CNIError as error:
            errors.append(error)
    if errors:
        raise combine(f'remove masquerading of "{container_id}" on "{network}"', errors)


def verify(  # noqa: PLR0917
    backend: str | None,
    network: str,
    container_id: str,
    ifname: str,
    prefixes: Sequence[Prefix],
    environ: Mapping[str, str],
) -> list[str]:
    """Say which rules are missing, one sentence each; without a backend either one will do."""
    from cni_flannel.kernel import iptables, nftables, programs

    check_backend(backend)
    if backend == NFTABLES:
        return nftables.missing(network, container_id, ifname, prefixes, environ)
    if backend is None and programs.find("nft", environ):
        from_nftables = nftables.missing(network, container_id, ifname, prefixes, environ)
        if not from_nftables or not programs.find("iptables", environ):
            return from_nftables
    return iptables.missing(network, container_id, prefixes, environ)


def collect(network: str, valid: Collection[tuple[str, str]], environ: Mapping[str, str]) -> None:
    """Take away the rules of the network's attachments that are not valid.

    `valid` holds (container ID, ifname). An iptables chain stays while any attachment of its
    container is valid. Rules of other networks and other programs are never touched. Goes on
    after an error; the errors come together.
    """
    from cni_flannel.kernel import iptables, nftables

    errors: list[CNIError] = []
    living = {rulenames.chain(network, container_id) for container_id, _ in valid}
    for family, kind in _may_hold("POSTROUTING"):
        try:
            iptables.collect(iptables.Tool(family, environ, kind), network, living)
        except CNIError as error:
            errors.append(error)
    try:
        nftables.collect(network, valid, environ)
    except CNIError as error:
        errors.append(error)
    if errors:
        raise combine(f'remove stale masquerading on "{network}"', errors)


def _may_hold(chain: str) -> list[tuple[int, str]]:
    """Of which families a table nat may hold the chain, and which kind of iptables writes there.

    Asks the kernel, runs nothing. iptables-nft's tables are read through nfnl. Of
    iptables-legacy's only the names show, so where there is a table nat the answer is perhaps.
    """
    places = []
    with nfnl.Ruleset() as ruleset:
        for family, nfproto in _NFPROTO.items():
            if ruleset.may_have_chain(nfproto, "nat", chain):
                places.append((family, _NFT))
            if _has_legacy_nat(family):
                places.append((family, _LEGACY))
    return places


def _may_hold_nftables() -> bool:
    with nfnl.Ruleset() as ruleset:
        table, chain = rulenames.NFT_MASQ_TABLE, rulenames.NFT_MASQ_CHAIN
        return ruleset.may_have_chain(nfnl.NFPROTO_INET, table, chain)


def _has_legacy_nat(family: int) -> bool:
    try:
        return b"nat" in files.read(_LEGACY_TABLES[family]).split()
    except FileNotFoundError:
        return False  # a kernel without legacy iptables
    except OSError:
        return True

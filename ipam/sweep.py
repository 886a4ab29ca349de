"""Taking leases back: from the provably dead when an address is wanted, and for GC.

Whole attachments are freed, never single addresses. Each one freed is told. Imported on these
rare paths only: a full pool, an address that is taken, GC. Reads every lease.
"""

from __future__ import annotations

from cni.cidr import parse_address
from ipam.failure import io_error
from ipam.witness import Witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.errors import CNIError
    from ipam.index import Owner
    from ipam.lease import Lease
    from ipam.ranges import RangeSet
    from ipam.store import Store

_EMPTY = "the file is empty"
_INVALID = "no valid attachment holds it"


def witness_of(store: Store, network: str, results_dir: str) -> Witness:
    """Make a witness who knows where everybody is whose namespace is still at its path."""
    witness = Witness(network, results_dir)
    for lease in _readable(store, []):
        entry = store.index.read(lease.owner) if lease.owner is not None else None
        if lease.owner is not None and entry is not None and entry.netns_id:
            witness.place(lease.owner[0], entry.netns_path, entry.netns_id)
    return witness


def dead(store: Store, range_set: RangeSet, witness: Witness) -> Iterator[tuple[Lease, str]]:
    """Give the leases of a range set that nobody can be using, each with the proof."""
    for lease in _readable(store, []):
        if range_set.range_of(parse_address(lease.name)) is None:
            continue
        reason = proof(store, lease, witness)
        if reason:
            yield lease, reason


def reclaim(
    store: Store, range_set: RangeSet, witness: Witness, note: Callable[[str], None]
) -> int:
    """Free every attachment that provably ended and holds an address of this range set."""
    freed = 0
    for lease, reason in dead(store, range_set, witness):
        freed += not free(store, lease, reason, note)
    return freed


def collect(
    store: Store,
    valid: set[Owner] | None,
    network: tuple[str, str],
    note: Callable[[str], None],
) -> list[CNIError]:
    """Free what is not in `valid`; without it (None) only the provably dead. Returns failures.

    `network` is its name, and where libcni keeps results.
    """
    errors: list[CNIError] = []
    for lease, reason in doomed(store, valid, network, note, errors):
        errors += free(store, lease, reason, note)
    return errors


def doomed(
    store: Store,
    valid: set[Owner] | None,
    network: tuple[str, str],
    note: Callable[[str], None],
    errors: list[CNIError],
) -> Iterator[tuple[Lease, str]]:
    """Give what `collect` frees, each with the reason; `errors` gets what cannot be read."""
    witness = None if valid is not None else witness_of(store, *network)
    containers = {container_id for container_id, _ in valid or ()}
    for lease in _readable(store, errors):
        if not lease.content.strip():
            reason = _EMPTY
        elif witness is not None:
            reason = proof(store, lease, witness)
        elif lease.owner is None and valid:
            note(f"kept {store.path}/{lease.name}: it says {lease.content[:80]!r}, not whose it is")
            continue
        else:
            reason = "" if _is_valid(lease, valid or set(), containers) else _INVALID
        if reason:
            yield lease, reason


def _readable(store: Store, errors: list[CNIError]) -> Iterator[Lease]:
    """Give every lease; one on a bad block must not keep the others from being collected.

    Each is read when its turn comes: `free` may have taken it away with another of its owner.
    """
    for name in sorted(store.names()):
        try:
            lease = store.lease(name)
        except OSError as error:
            errors.append(io_error("failed to read a lease", store.path, error))
            continue
        if lease is not None:
            yield lease


def free(store: Store, lease: Lease, reason: str, note: Callable[[str], None]) -> list[CNIError]:
    """Free all that the lease's owner holds, and tell; returns what could not be removed."""
    names = {lease.name}
    try:
        if lease.owner is not None:
            names.update(str(address) for address in store.held(lease.owner))
    except OSError as error:  # of another lease, and nobody knows whose that is
        note(f"took back {lease.name} alone: {store.path}/{error.filename}: {error.strerror}")
    failures = store.release(lease.owner, sorted(names))
    if not failures:
        whose = " ".join(lease.owner).strip() if lease.owner else "nobody"
        note(f"took back {', '.join(sorted(names))} from {whose}: {reason}")
    return [io_error("failed to remove a lease", store.path, failure) for failure in failures]


def proof(store: Store, lease: Lease, witness: Witness) -> str:
    """Return why the holder of a lease is known to be gone, or ""."""
    if not lease.content.strip():
        return _EMPTY
    entry = store.index.read(lease.owner) if lease.owner is not None else None
    return witness.proof_of_death(lease.owner, lease.mtime_ns / 1e9, entry)


def _is_valid(lease: Lease, valid: set[Owner], containers: set[str]) -> bool:
    """Whether the lease's owner is listed; the old format names the container only."""
    if lease.owner is None:
        return False
    return lease.owner in valid or (not lease.owner[1] and lease.owner[0] in containers)

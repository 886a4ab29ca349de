"""Taking leases back: from the provably dead when a pool is full, and for GC.

Whole attachments are freed, never single addresses. Each one freed is told. Imported on these
two rare paths only; reads every lease.
"""

from __future__ import annotations

from cni.cidr import parse_address
from ipam.failure import io_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni.errors import CNIError
    from ipam.index import Owner
    from ipam.lease import Lease
    from ipam.ranges import RangeSet
    from ipam.store import Store
    from ipam.witness import Witness


def dead(store: Store, range_set: RangeSet, witness: Witness) -> Iterator[tuple[Lease, str]]:
    """Give the leases of a range set that nobody can be using, each with the proof."""
    _place_all(store, store.leases(), witness)
    for lease in store.leases():
        if range_set.range_of(parse_address(lease.name)) is None:
            continue
        reason = "the file is empty" if not lease.content.strip() else proof(store, lease, witness)
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
    witness: Witness,
    note: Callable[[str], None],
) -> list[CNIError]:
    """Free what is not in `valid`; without it (None) only the provably dead. Returns failures."""
    errors: list[CNIError] = []
    containers = {container_id for container_id, _ in valid or ()}
    if valid is None:
        _place_all(store, _readable(store, []), witness)  # the next round reports
    for lease in _readable(store, errors):
        if not lease.content.strip():
            reason = "the file is empty"
        elif valid is None:
            reason = proof(store, lease, witness)
        elif lease.owner is None and valid:
            note(f"kept {store.path}/{lease.name}: it says {lease.content[:80]!r}, not whose it is")
            continue
        else:
            reason = "" if _is_valid(lease, valid, containers) else "no valid attachment holds it"
        if reason:
            errors += free(store, lease, reason, note)
    return errors


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
    entry = store.index.read(lease.owner) if lease.owner is not None else None
    return witness.proof_of_death(lease.owner, lease.mtime, entry)


def _place_all(store: Store, leases: Iterable[Lease], witness: Witness) -> None:
    """Tell the witness where everybody is whose namespace is still at its path."""
    for lease in leases:
        entry = store.index.read(lease.owner) if lease.owner is not None else None
        if lease.owner is not None and entry is not None and entry.netns_id:
            witness.place(lease.owner[0], entry.netns_path, entry.netns_id)


def _is_valid(lease: Lease, valid: set[Owner], containers: set[str]) -> bool:
    """Whether the lease's owner is listed; the old format names the container only."""
    if lease.owner is None:
        return False
    return lease.owner in valid or (not lease.owner[1] and lease.owner[0] in containers)

"""etcd's keys, events and comparisons as leases and back.  Pure, but for its log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcd3aio._protobuf import Compare

from flanneld.lease import Lease
from flanneld.subnet import choice, keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.lease import Attributes

_log = logging.getLogger(__name__)
_DELETE = 1  # mvccpb.Event.DELETE


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of etcd: the lease it spells, its last revision, and its etcd lease (0: none)."""

    key: str
    lease: Lease
    modified: int
    lease_id: int


def entries(kvs: Iterable[Any]) -> list[Entry]:
    """Read what a range gives (mvccpb.KeyValue); a key that is no lease is skipped and logged."""
    found = []
    for kv in kvs:
        key = kv.key.decode(errors="replace")
        try:
            lease = keys.lease(key, kv.value)
        except keys.BadLease as error:
            _log.warning("ignoring a key of the store: %s", error)
        else:
            found.append(Entry(key, lease, kv.mod_revision, kv.lease))
    return found


def own(found: Iterable[Entry], attributes: Attributes) -> list[Entry]:
    """Find the entries of the node that publishes these attributes: one, unless one is outdated."""
    return [entry for entry in found if choice.is_own(entry.lease, attributes)]


def apply(events: Iterable[Any], leases: dict[str, Lease]) -> bool:
    """Change leases by a watch's events (mvccpb.Event); whether any of them differs now.

    A value that cannot be read leaves the lease as it was known.
    """
    changed = False
    for event in events:
        if event.type == _DELETE:
            changed |= _remove(event.kv.key.decode(errors="replace"), leases)
            continue
        for entry in entries([event.kv]):
            changed |= leases.get(entry.lease.key) != entry.lease
            leases[entry.lease.key] = entry.lease
    return changed


def unchanged(entry: Entry) -> Compare:
    """Require that nobody has written the key since it was read."""
    return Compare(
        result=Compare.EQUAL,
        target=Compare.MOD,
        key=entry.key.encode(),
        mod_revision=entry.modified,
    )


def _remove(key: str, leases: dict[str, Lease]) -> bool:
    """Forget the lease of a deleted key; a key that never was one is nobody's."""
    try:
        subnet, subnet6 = keys.subnets(key)
    except keys.BadLease:
        return False
    return leases.pop(Lease(subnet, subnet6).key, None) is not None

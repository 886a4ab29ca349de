"""etcd's keys, events and comparisons as leases and back.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from etcd3aio._protobuf import Compare

from flanneld.lease import Lease
from flanneld.plain import quoted
from flanneld.subnet import keys
from flanneld.subnet.manager import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

_DELETE = 1  # mvccpb.Event.DELETE


@dataclass(frozen=True, slots=True)
class Entry:
    """A key below the folder of leases, its last revision, and its etcd lease (0: none).

    ``fault`` says what is wrong with one that is no lease.  Then nobody is known to hold the
    subnets of ``lease``; which is None if the key spells none.
    """

    key: str
    lease: Lease | None
    modified: int
    lease_id: int
    fault: str = ""


def entries(kvs: Iterable[Any], folder: str) -> list[Entry]:
    """Read what a range gives (mvccpb.KeyValue)."""
    return [_entry(kv, folder) for kv in kvs]


def _entry(kv: Any, folder: str) -> Entry:
    key = _key(kv, folder)
    lease, fault = None, ""
    try:
        lease = Lease(*keys.subnets(key), since=kv.create_revision)
        lease = replace(lease, attributes=keys.attributes(kv.value))
    except keys.BadLease as error:
        fault = f"ignoring a key of the store, {quoted(kv.key)}: {error}; delete or correct it"
    return Entry(key, lease, kv.mod_revision, kv.lease, fault)


def _key(kv: Any, folder: str) -> str:
    text: str = kv.key.decode(errors="backslashreplace")
    return text.removeprefix(folder)


class Seen:
    """All entries of the store as they are, kept by a watch's events.

    An entry that cannot be read any more is still the lease that it was, with a fault.
    """

    def __init__(self, found: Iterable[Entry], folder: str) -> None:
        self._folder = folder
        self._leases: dict[str, Lease] = {}
        self._faults: dict[str, str] = {}
        for entry in found:
            self._put(entry)
        self.snapshot = Snapshot(MappingProxyType(self._leases), MappingProxyType(self._faults))

    def apply(self, events: Iterable[Any]) -> bool:
        """Take a watch's events (mvccpb.Event); whether anything differs now."""
        changed = False
        for event in events:
            if event.type == _DELETE:
                key = _key(event.kv, self._folder)
                gone = (self._leases.pop(key, None), self._faults.pop(key, None))
                changed |= gone != (None, None)
            else:
                changed |= self._put(_entry(event.kv, self._folder))
        return changed

    def _put(self, entry: Entry) -> bool:
        before = self._leases.get(entry.key), self._faults.get(entry.key)
        if entry.fault:
            self._faults[entry.key] = entry.fault
        elif entry.lease is not None:
            self._faults.pop(entry.key, None)
            self._leases[entry.key] = entry.lease
        return before != (self._leases.get(entry.key), self._faults.get(entry.key))


def unchanged(entry: Entry, folder: str) -> Compare:
    """Require that nobody has written the key since it was read."""
    return Compare(
        result=Compare.EQUAL,
        target=Compare.MOD,
        key=(folder + entry.key).encode(),
        mod_revision=entry.modified,
    )

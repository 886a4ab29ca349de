"""A store without a server: leases of this machine in one file, those of other nodes in another.

Both files are JSON objects of keys and values as etcd holds them (``keys``)::

    {"10.244.2.0-24": {"PublicIP": "192.0.2.2", "BackendType": "host-gw"}}

Daemons on one machine that share a folder share the leases, under a lock: each sees the others as
peers.  The file of peers is a person's, or a program's: it is read, watched, never written.  One
may serve all nodes: a node takes the subnet that it gives to the node's own address.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from flanneld import document, files
from flanneld.claim import has_address
from flanneld.lease import Lease
from flanneld.plain import quoted
from flanneld.subnet import choice, keys
from flanneld.subnet.manager import Revoked, Snapshot, StoreError
from flanneld.watched import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from flanneld.claim import Claim
    from flanneld.config import NetConf
    from flanneld.lease import Attributes

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Book:
    """What a file says: leases, and what is wrong with other entries.

    Those, ``rest``, are kept; ``unknown`` are the leases of which nobody is known to be the holder.
    """

    leases: dict[str, Lease] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, Lease] = field(default_factory=dict)

    @property
    def taken(self) -> Iterator[Lease]:
        """All leases, whoever holds them."""
        return chain(self.leases.values(), self.unknown.values())

    def put(self, lease: Lease) -> None:
        """Write a lease, over whatever was there."""
        for entries in (self.faults, self.rest, self.unknown):
            entries.pop(lease.key, None)
        self.leases[lease.key] = lease


class Local:
    """``manager.Manager`` on files in ``folder``; ``peers`` is a path, or "".

    ``wanted`` are the subnets that this node is to have, if a person has chosen them.
    """

    def __init__(
        self,
        conf: NetConf,
        folder: str,
        peers: str = "",
        wanted: Lease | None = None,
        *,
        source: str = "",
        again: Callable[[], NetConf] | None = None,
    ) -> None:
        self._conf = conf
        self._again = again or (lambda: conf)
        self.source = source
        self._leases = os.path.join(folder, "leases.json")
        self._lock = os.path.join(folder, "lock")
        self._peers = peers
        self._wanted = wanted
        self._held: Lease | None = None

    async def config(self) -> NetConf:
        """Read the configuration that was given; OSError, UsageError if it is gone."""
        return self._again()

    async def leases(self) -> Snapshot:
        """Read both files."""
        return self._snapshot()

    async def acquire(self, claim: Claim) -> Lease:
        """Lease the subnet that is wanted, this node's, the one it had, or the first free one."""
        peers = self._read(self._peers)
        with self._locked() as book:
            for lease in claim.own(book.leases.values()):
                if not self._fits(lease, claim):
                    del book.leases[lease.key]
            lease = replace(self._choose(claim, book, peers), attributes=claim.attributes)
            book.put(lease)
        self._held = lease
        return lease

    def _choose(self, claim: Claim, book: _Book, peers: _Book) -> Lease:
        own = claim.own(book.leases.values())
        if own:
            return own[0]
        told = claim.own(peers.leases.values())  # a file for all nodes has this one too
        theirs = [lease for lease in peers.taken if lease not in told]
        if self._wanted is not None:
            return _free(self._wanted, {self._leases: book.taken, self._peers: theirs})
        for lease in (*told, *filter(claim.had, book.unknown.values())):
            if self._fits(lease, claim):
                return lease
        others = [*book.taken, *theirs]
        return choice.reusable(
            claim.previous, others, self._conf, claim.uplink
        ) or choice.first_free(others, self._conf, claim.avoid)

    def _fits(self, lease: Lease, claim: Claim) -> bool:
        wanted = self._wanted is None or lease.key == self._wanted.key
        return wanted and choice.fits(lease, self._conf, claim.uplink)

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace what this node says of its lease."""
        with self._locked() as book:
            if not _holds(book, lease):
                raise Revoked(f"{lease.key} is not this node's in {self._leases} any more")
            lease = replace(lease, attributes=attributes)
            self._held = lease
            book.put(lease)
        return lease

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Watch over the lease: a local one has no end, but can be taken out of the file."""
        del renewed
        if self._held is None or self._held.key != lease.key:
            self._held = lease
        with closing(Watched([self._leases])) as watched:
            while True:
                try:
                    self._check(self._held)
                except StoreError as error:
                    _log.error("keeping what was known: %s", error)
                await watched.change()

    def _check(self, held: Lease) -> None:
        """See that the lease is in the file, and write it anew if it cannot be read; Revoked."""
        book = self._read(self._leases)
        if not _holds(book, held):
            raise Revoked(f"{held.key} was taken out of {self._leases}")
        if held.key in book.faults:
            _log.warning("writing this node's lease anew: %s", book.faults[held.key])
            with self._locked() as book:
                book.put(held)

    async def watch(self) -> AsyncGenerator[Snapshot, None]:
        """Give all leases, of this machine and of the file of peers, now and after each change."""
        paths = [path for path in (self._peers, self._leases) if path]
        try:
            changes = Watched(paths)
        except OSError as error:
            raise StoreError(
                f"watching the folders of {' and '.join(paths)}: {error}: --peers names a file in a"
                " folder that exists"
            ) from None
        with closing(changes) as watched:
            while True:
                try:
                    snapshot = self._snapshot()
                except StoreError as error:
                    _log.error("keeping what was known: %s", error)
                else:
                    yield snapshot
                await watched.change()

    async def close(self) -> None:
        """Nothing is held open."""

    def _snapshot(self) -> Snapshot:
        """Read both files; what they say of one subnet, that of this machine counts."""
        peers, book = self._read(self._peers), self._read(self._leases)
        faults = peers.faults | book.faults
        for key in peers.leases.keys() & book.leases.keys():
            told, held = peers.leases[key], book.leases[key]
            if not has_address(told, held.attributes):
                faults[key] = (
                    f"{key} of {_holder(told)} ({self._peers}): {_holder(held)} on this machine has"
                    " it: give one of the two another --subnet"
                )
        return Snapshot(peers.leases | book.leases, faults)

    def _read(self, path: str) -> _Book:
        try:
            return _parse(path, files.read(path)) if path else _Book()
        except OSError as error:
            raise StoreError(f"reading {path}: {error.strerror or error}") from None

    @contextmanager
    def _locked(self) -> Iterator[_Book]:
        """Read the leases of this machine, and write them back if they have changed."""
        try:
            with files.lock(self._lock):
                book = self._read(self._leases)
                before = deepcopy(book)
                yield book
                if book != before:
                    files.write(self._leases, _render(book))
        except files.Locked as error:
            raise StoreError(f"another flanneld is about to change leases: {error}") from None
        except OSError as error:
            raise StoreError(
                f"keeping leases in {self._leases}: {error}: make its folder writable, or name"
                " another with --data-dir"
            ) from error


def _free(wanted: Lease, taken: Mapping[str, Iterable[Lease]]) -> Lease:
    """Give the subnets that are wanted; StoreError if a lease of one of the files overlaps them."""
    for path, leases in taken.items():
        for lease in leases:
            if any(map(lease.overlaps, wanted.subnets)):
                raise StoreError(
                    f"{wanted.key} is not free: {path} gives {lease.key} to {_holder(lease)}: give"
                    " one of the two another --subnet"
                )
    return wanted


def _holder(lease: Lease) -> str:
    return " and ".join(map(str, lease.attributes.public_ips)) or "an unknown node"


def _holds(book: _Book, held: Lease) -> bool:
    """Whether a lease is in the file, and not another node's."""
    found = book.leases.get(held.key)
    return held.key in book.unknown or (found is not None and has_address(found, held.attributes))


def _parse(path: str, content: bytes | None) -> _Book:
    """Read a file of leases; StoreError for a file that is not an object of JSON."""
    try:
        entries = {} if content is None else document.parse(content)
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}: correct or delete it") from None
    if not isinstance(entries, dict):
        raise StoreError(f"{path} is not a JSON object of leases by key: correct or delete it")
    book = _Book()
    for place, (key, told) in enumerate(entries.items()):
        lease = None
        try:
            lease = Lease(*keys.subnets(key), since=place)
            document.check(told)
            book.leases[key] = replace(lease, attributes=keys.published(told))
        except ValueError as error:
            shown = f"{path}: the value of {key}" if lease else path
            book.faults[quoted(key) if lease is None else key] = f"{shown}: {error}"
            book.rest[key] = told
            if lease is not None:
                book.unknown[key] = lease
    return book


def _render(book: _Book) -> bytes:
    entries = {key: json.loads(keys.value(one.attributes)) for key, one in book.leases.items()}
    return (json.dumps(book.rest | entries, indent=1) + "\n").encode()

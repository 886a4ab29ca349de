"""A store without a server: leases of this machine in one file, those of other nodes in another.

Both files are JSON objects of keys and values as etcd holds them (``keys``)::

    {"10.244.2.0-24": {"PublicIP": "192.0.2.2", "BackendType": "host-gw"}}

Daemons on one machine that share a folder share the leases, under a lock: each sees the others as
peers.  The file of peers is a person's, or a program's: it is read, watched, never written.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flanneld import files
from flanneld.subnet import choice, keys
from flanneld.subnet.manager import Revoked, StoreError
from flanneld.watched import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease

_log = logging.getLogger(__name__)


class Local:
    """``manager.Manager`` on files, for a network whose configuration is given."""

    def __init__(
        self,
        conf: NetConf,
        folder: str,
        peers: str = "",
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
        self._held: Lease | None = None

    async def config(self) -> NetConf:
        """Read the configuration that was given; OSError, UsageError if it is gone."""
        return self._again()

    async def own(self, attributes: Attributes) -> Lease | None:
        """Find the lease that names this node."""
        return _own(self._read(self._leases), attributes)

    async def acquire(self, attributes: Attributes, previous: Lease | None) -> Lease:
        """Lease the subnet this node had, or the first free one."""
        peers = self._read(self._peers).values() if self._peers else ()
        with self._locked() as leases:
            lease = _own(leases, attributes)
            if lease is not None and not choice.fits(lease, self._conf):
                del leases[lease.key]
                lease = None
            taken = [*leases.values(), *peers]
            if lease is None:
                lease = choice.reusable(previous, taken, self._conf) or choice.first_free(
                    taken, self._conf
                )
            lease = replace(lease, attributes=attributes)
            leases[lease.key] = lease
        self._held = lease
        return lease

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace what this node says of its lease."""
        with self._locked() as leases:
            if not _holds(leases, lease):
                raise Revoked(f"{lease.key} is not this node's in {self._leases} any more")
            lease = replace(lease, attributes=attributes)
            self._held = lease
            leases[lease.key] = lease
        return lease

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Watch over the lease: a local one has no end, but can be taken out of the file."""
        del renewed
        if self._held is None or self._held.key != lease.key:
            self._held = lease
        with closing(Watched([self._leases])) as watched:
            while True:
                leases = self._readable([self._leases])
                if leases is not None and not _holds(leases, self._held):
                    raise Revoked(f"{lease.key} was taken out of {self._leases}")
                await watched.change()

    async def watch(self) -> AsyncGenerator[Mapping[str, Lease], None]:
        """Give all leases, of this machine and of the file of peers, now and after each change."""
        paths = [*([self._peers] if self._peers else []), self._leases]
        try:
            changes = Watched(paths)
        except OSError as error:
            raise StoreError(
                f"watching the folders of {' and '.join(paths)}: {error}: --peers names a file in a"
                " folder that exists"
            ) from None
        with closing(changes) as watched:
            while True:
                leases = self._readable(paths)
                if leases is not None:
                    yield leases
                await watched.change()

    async def close(self) -> None:
        """Nothing is held open."""

    def _readable(self, paths: Iterable[str]) -> dict[str, Lease] | None:
        """Read some files, the later ones on top; None, and a log line, if one is in no state."""
        leases: dict[str, Lease] = {}
        try:
            for path in paths:
                leases |= self._read(path)
        except StoreError as error:
            _log.error("keeping what was known: %s", error)
            return None
        return leases

    def _read(self, path: str) -> dict[str, Lease]:
        try:
            return _parse(path, files.read(path))
        except OSError as error:
            raise StoreError(f"reading {path}: {error}") from None

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Lease]]:
        """Read the leases of this machine, and write them back if they have changed."""
        try:
            with files.lock(self._lock):
                leases = self._read(self._leases)
                before = dict(leases)
                yield leases
                if leases != before:
                    files.write(self._leases, _render(leases))
        except files.Locked as error:
            raise StoreError(f"another flanneld is about to change leases: {error}") from None
        except OSError as error:
            raise StoreError(
                f"keeping leases in {self._leases}: {error}: make its folder writable, or name"
                " another with --data-dir"
            ) from error


def _own(leases: Mapping[str, Lease], attributes: Attributes) -> Lease | None:
    return next((lease for lease in leases.values() if choice.is_own(lease, attributes)), None)


def _holds(leases: Mapping[str, Lease], held: Lease) -> bool:
    """Whether a lease is among them, and still this node's."""
    found = leases.get(held.key)
    return found is not None and choice.is_own(found, held.attributes)


def _parse(path: str, content: bytes | None) -> dict[str, Lease]:
    """Read a file of leases; an entry that is wrong is reported and left out.

    StoreError for a file that is not an object of JSON.
    """
    try:
        document: Any = json.loads(content or b"{}")
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise StoreError(f"{path} is not a JSON object of leases by key")
    leases = {}
    for key, value in document.items():
        try:
            lease = keys.lease(key, json.dumps(value).encode())
        except keys.BadLease as error:
            _log.warning("ignoring an entry: %s", error, extra={"file": path})
        else:
            leases[lease.key] = lease
    return leases


def _render(leases: Mapping[str, Lease]) -> bytes:
    document = {
        key: json.loads(keys.value(lease.attributes)) for key, lease in sorted(leases.items())
    }
    return (json.dumps(document, indent=1) + "\n").encode()

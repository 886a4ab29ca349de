"""Who holds which addresses: by the index while it can be believed, else by reading every lease.

What others have changed shows in the index's stamp (ipam/index.py). Then the leases are walked,
and the index is written anew; but one that knows more than the files is left to an ADD, which
finds out who lives (ipam/recovery.py). An index that cannot be had costs that walk, nothing else.
"""

from __future__ import annotations

import os

from ipam.index import NOBODY, Entry
from ipam.lease import DRAFT, owner_at, unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.cidr import Address
    from ipam.index import Index, Owner

NO_LEASES = ("lock", DRAFT)  # names beside the leases in their folder, and
LAST = "last_reserved_ip."


class Holders:
    """What one visit to the leases in the folder `dir_fd` knows; writes only if it `may_write`."""

    __slots__ = (
        "_changed",
        "_dir_fd",
        "_in_doubt",
        "_index",
        "_may_write",
        "_walked",
        "is_indexed",
    )

    def __init__(self, dir_fd: int, index: Index, *, may_write: bool) -> None:
        self._dir_fd = dir_fd
        self._index = index
        self._may_write = may_write
        self._walked: dict[Owner, list[str]] | None = None
        self._changed = False
        self._in_doubt = False  # the next visit has to look again
        self.is_indexed = index.matches(dir_fd)  # every lease has its entry

    def names(self, owner: Owner) -> list[str]:
        """Return the leases that may be the attachment's."""
        if self._walked is None and not (self.is_indexed and self._index.fits(owner)):
            if self.is_indexed or not self._may_write:
                self._walk()
            elif self.unborne() == []:
                self.reindex()
        if self._walked is None:
            try:
                entry = self._index.read(owner)
                return entry.addresses if entry else []
            except OSError:
                pass
        return self._walk().get(owner, [])

    def unborne(self) -> list[tuple[Owner, Entry]] | None:
        """Return the index's entries with an address of which no lease tells; None without index.

        Reads every lease.
        """
        leased = {name for names in self._walk().values() for name in names}
        try:
            return [one for one in self._index.entries() if not leased.issuperset(one[1].addresses)]
        except OSError:
            return None

    def reindex(self, nameless: list[Address] | None = None) -> None:
        """Write the index anew.

        `nameless` addresses are in use by nobody knows whom: then the next visit looks again.
        """
        if not self._may_write:
            return
        owners = dict(self._walk())
        if nameless:
            owners[NOBODY] = [str(address) for address in nameless]
            self._in_doubt = True
        try:
            unlink(DRAFT, self._dir_fd)
            self._index.rebuild(owners)
            self.is_indexed = self._changed = True
        except OSError:
            pass

    def make_room(self) -> bool:
        """Give the index's inodes back to the file system, which has no more; whether it had any.

        The next visit makes an index again, if it can.
        """
        self._walk()
        self.is_indexed = self._may_write = False
        return self._index.drop()

    def note(self, owner: Owner, addresses: list[Address], netns_id: str, netns: str) -> None:
        """Write an entry: what the attachment holds now."""
        if not self.is_indexed or not self._index.fits(owner):
            return
        self.is_indexed = False
        try:
            self._index.write(owner, Entry([str(one) for one in addresses], netns_id, netns))
            self.is_indexed = True
        except OSError:
            pass

    def forget(self, owner: Owner) -> None:
        """Drop an attachment's entry."""
        try:
            if self._index.fits(owner) and self._index.remove(owner):
                self._changed = True
        except OSError:
            self.is_indexed = False

    def found(self, owner: Owner, name: str) -> None:
        """Learn of a lease that came back."""
        if self._walked is not None:
            self._walked.setdefault(owner, []).append(name)

    def changed(self) -> None:
        """Learn that leases were made or removed: the index has to be vouched for again."""
        self._changed = True

    def doubt(self) -> None:
        """Learn that the index may be wrong: the next visit walks."""
        self.is_indexed = False

    def vouch(self) -> None:
        """End the visit: stamp the index if it has been kept up to date; OSError."""
        if self._changed and self.is_indexed and not self._in_doubt:
            self._index.seal(self._dir_fd)

    def _walk(self) -> dict[Owner, list[str]]:
        """Read every file of the folder, once, and sort the leases by owner."""
        if self._walked is None:
            self._walked = {}
            for name in os.listdir(self._dir_fd):
                if name in NO_LEASES or name.startswith(LAST):
                    continue
                owner = owner_at(name, self._dir_fd)
                if owner is not None:
                    self._walked.setdefault(owner, []).append(name)
        return self._walked

"""The leases of one network on disk, in the reference plugin's layout, under its lock.

    <dataDir>/<network>/10.5.0.2              a lease (ipam/lease.py)
    <dataDir>/<network>/last_reserved_ip.0    the address that range set 0 gave last
    <dataDir>/<network>/lock                  flock(2), exclusive, for every change

Go's plugin works on the same directory, before, after and at the same time. A Store is one
visit: `with Store.open(...) as store`. When the block raises, every lease that was made in it
goes away again; afterwards the index is vouched for. Raises OSError; knows no ranges, no JSON.
"""

from __future__ import annotations

import errno
import os

from cni.cidr import parse_address
from ipam import folder
from ipam.holders import LAST, Holders
from ipam.index import Index
from ipam.lease import (
    Draft,
    content_of,
    exists,
    is_empty,
    overwrite,
    owner_at,
    read,
    read_lease,
    unlink,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self, TypeVar

    from cni.cidr import Address
    from ipam.index import Owner
    from ipam.lease import Lease

    T = TypeVar("T")

_NO_LOCK = -1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """One visit to the leases of a network; `path` is their directory."""

    __slots__ = ("_lock_fd", "_made", "dir_fd", "holders", "index", "path")

    def __init__(self, path: str, dir_fd: int, lock_fd: int, index: Index) -> None:
        self.path = path
        self.dir_fd = dir_fd
        self.index = index
        self._lock_fd = lock_fd
        self._made: list[tuple[str, Draft]] = []  # the leases of this visit, by their inodes
        self.holders = Holders(dir_fd, index, may_write=lock_fd != _NO_LOCK)

    @staticmethod
    def open(data_dir: str, network: str, timeout_s: float, *, create: bool) -> Store | None:
        """Lock the network's leases; None if there are none and `create` is false.

        CNIError 11 when the lock is not free in time.
        """
        path = f"{data_dir}/{network}"
        found = folder.locked(path, timeout_s, create=create)
        if found is None:
            return None
        try:
            return Store(path, *found, Index(data_dir, network))
        except BaseException:
            for fd in found:
                os.close(fd)
            raise

    @staticmethod
    def look(data_dir: str, network: str) -> Store | None:
        """Visit without the lock, to read only; None if there are no leases."""
        path = f"{data_dir}/{network}"
        dir_fd = folder.look(path)
        return None if dir_fd is None else Store(path, dir_fd, _NO_LOCK, Index(data_dir, network))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                self._roll_back()
            self.holders.vouch()
        except OSError:  # then the next visit walks
            pass
        except BaseException:  # interrupted at the last moment
            self._roll_back()
            raise
        finally:
            if self._lock_fd != _NO_LOCK:
                os.close(self._lock_fd)
            os.close(self.dir_fd)

    def reserve(self, addresses: Iterable[Address], owner: Owner, ns: int = 0) -> Address | None:
        """Lease the first address that is free; None when none is. The file gets the time `ns`."""

        def lease() -> Address | None:
            with Draft(self.dir_fd, owner, ns) as draft:
                for address in addresses:
                    if self._publish(draft, str(address)):
                        return address
            return None

        return self._given_room(lease)

    def owner(self, name: str) -> Owner | None:
        """Return who holds an address, from the lease file itself."""
        return owner_at(name, self.dir_fd)

    def is_free(self, name: str) -> bool:
        """Whether nobody holds the address."""
        return not exists(name, self.dir_fd) or is_empty(name, self.dir_fd)

    def held(self, owner: Owner) -> list[Address]:
        """Return the addresses that the attachment holds, in no particular order."""
        found = [self._verified(name, owner) for name in self.holders.names(owner)]
        return [address for address in found if address is not None]

    def put_back(self, name: str, owner: Owner) -> bool:
        """Write a lease that has vanished; False when somebody holds the address."""
        if is_empty(name, self.dir_fd):
            overwrite(name, content_of(owner), self.dir_fd)
        else:
            with Draft(self.dir_fd, owner) as draft:
                if not draft.link(name):
                    return False
        self.holders.changed()
        self.holders.found(owner, name)
        return True

    def release(self, owner: Owner | None, names: list[str]) -> list[OSError]:
        """Remove leases and their owner's entry; goes on after an error and returns them all."""
        errors: list[OSError] = []
        for name in names:
            self.holders.changed()
            try:
                unlink(name, self.dir_fd)
            except OSError as error:
                errors.append(error)
                self.holders.doubt()
        if owner is not None:
            self.holders.forget(owner)
        return errors

    def lease(self, name: str) -> Lease | None:
        """Read one lease; None when there is none or the name is no address."""
        try:
            parse_address(name)
        except ValueError:
            return None
        return read_lease(name, self.dir_fd)

    def names(self) -> set[str]:
        """Return the names in the directory; those of leases are addresses."""
        return set(os.listdir(self.dir_fd))

    def last_reserved(self, range_index: int) -> Address | None:
        """Return the address that a range set gave last; None if unknown."""
        content = read(f"{LAST}{range_index}", self.dir_fd) or b""
        try:
            return parse_address(content.rstrip(b"\0").decode())
        except ValueError:
            return None

    def set_last_reserved(self, range_index: int, address: Address) -> None:
        """Note the address that a range set gave last."""
        name, content = f"{LAST}{range_index}", str(address).encode()
        self._given_room(lambda: overwrite(name, content, self.dir_fd))

    def _given_room(self, write: Callable[[], T]) -> T:
        """Write; once more without the index where the file system has no inode left for it."""
        try:
            return write()
        except OSError as error:
            if error.errno not in _NO_ROOM or not self.holders.make_room():
                raise
        return write()

    def _publish(self, draft: Draft, name: str) -> bool:
        """Link the draft to the address's name; False when somebody holds the address."""
        self._made.append((name, draft))  # before: an interrupt may come at any point
        linked = draft.link(name)
        if not linked and is_empty(name, self.dir_fd) and not self._revive(name):
            unlink(name, self.dir_fd)
            linked = draft.link(name)
        if linked:
            self.holders.changed()
        else:
            self._made.pop()
        return linked

    def _roll_back(self) -> None:
        """Remove the leases of this visit, and no others: the inode tells."""
        while self._made:
            self.holders.changed()
            name, draft = self._made[-1]
            try:
                if os.stat(name, dir_fd=self.dir_fd, follow_symlinks=False).st_ino == draft.inode:
                    os.unlink(name, dir_fd=self.dir_fd)
            except FileNotFoundError:
                pass
            self._made.pop()

    def _verified(self, name: str, owner: Owner) -> Address | None:
        try:
            address = parse_address(name)
        except ValueError:
            return None
        return address if self.owner(name) == owner else None

    def _revive(self, name: str) -> bool:
        """Whether an empty lease file is a living pod's: then it says so again."""
        from ipam import recovery  # a file that a power loss, or somebody, has emptied

        try:
            return recovery.revive(self, name)
        except OSError:
            return False

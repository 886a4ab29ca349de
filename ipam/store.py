"""The leases of one network on disk, in the reference plugin's format, under its lock.

    <dataDir>/<network>/10.5.0.2              containerID CR LF ifname (older: containerID alone)
    <dataDir>/<network>/last_reserved_ip.0    the address that range set 0 gave last
    <dataDir>/<network>/lock                  flock(2), exclusive, for every change

Go's plugin works on the same directory, before, after and at the same time. A lease appears
whole: it is written as a file without a name (O_TMPFILE) and linked to its name, so that nothing
half-made is ever seen and SIGKILL leaves nothing to clean up. An empty file is what a killed
Go plugin leaves: nobody's lease.

A Store is one locked visit: `with Store.open(...) as store`. When the block raises, every lease
that was made in it goes away again; otherwise the index is vouched for. Methods raise OSError;
`io_error` turns it into what the runtime reads. Knows nothing of ranges and of JSON.
"""

from __future__ import annotations

import fcntl
import os

from cni.cidr import Address, parse_address
from cni.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CNIError
from ipam.index import Entry, Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ipam.index import Owner

_LINE_BREAK = "\r\n"
_DRAFT = ".new-lease"  # only where the file system has no files without a name
_LAST = "last_reserved_ip."


class Lease:
    """A lease file: `owner` is None when it is empty or says nothing sensible."""

    __slots__ = ("content", "mtime", "name", "owner")

    def __init__(self, name: str, content: bytes, mtime: float) -> None:
        self.name = name
        self.content = content
        self.owner = owner_of(content)
        self.mtime = mtime


class Store:
    """One locked visit to the leases of a network; `path` is their directory."""

    __slots__ = ("_changed", "_current", "_lock_fd", "_made", "_owners", "dir_fd", "index", "path")

    def __init__(self, path: str, dir_fd: int, lock_fd: int, index: Index) -> None:
        self.path = path
        self.dir_fd = dir_fd
        self.index = index
        self._lock_fd = lock_fd
        self._made: list[tuple[str, int]] = []  # name and inode of each lease of this visit
        self._owners: dict[Owner, list[str]] | None = None  # after a walk
        self._changed = False
        self._current = index.matches(dir_fd)

    @staticmethod
    def open(data_dir: str, network: str, timeout_s: float, *, create: bool) -> Store | None:
        """Lock the network's leases; None if there are none and `create` is false.

        CNIError 11 when the lock is not free in time.
        """
        path = f"{data_dir}/{network}"
        while True:
            try:
                dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if not create:
                    return None
                os.makedirs(path, 0o755, exist_ok=True)
                continue
            store = None
            try:
                store = _locked(path, dir_fd, timeout_s, Index(data_dir, network))
            finally:
                if store is None:
                    os.close(dir_fd)
            if store is not None:
                return store

    def __enter__(self) -> Store:
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
            if self._changed and self._current:
                self._seal()
        finally:
            self.close()

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock_fd)
        os.close(self.dir_fd)

    # ------------------------------------------------------------------------------ leases

    def reserve(self, addresses: Iterator[Address], owner: Owner) -> Address | None:
        """Make a lease of the first address that is free; None when none of them is."""
        with _Draft(self, f"{owner[0]}{_LINE_BREAK}{owner[1]}") as draft:
            for address in addresses:
                if self._publish(draft, str(address)):
                    return address
        return None

    def owner(self, name: str) -> Owner | None:
        """Return who holds the address, from the lease file itself."""
        content = self.content(name)
        return owner_of(content) if content else None

    def content(self, name: str) -> bytes | None:
        """Return what the lease file says; None when there is none."""
        return _read(name, self.dir_fd)

    def held(self, owner: Owner) -> list[Address]:
        """Return the addresses that the attachment holds, in no particular order."""
        names = self._names(owner)
        return [address for name in names if (address := self._verified(name, owner)) is not None]

    def record(self, owner: Owner, addresses: list[Address], netns_id: str, netns: str) -> None:
        """Note in the index what the attachment holds now; a failure costs only the index."""
        entry = Entry([str(address) for address in addresses], netns_id, netns)
        self._current, current = False, self._current
        if not current or not self.index.fits(owner):
            self._current = current
            return
        try:
            self.index.write(owner, entry)
            self._current = True
        except OSError:
            pass

    def release(self, owner: Owner, names: list[str]) -> list[OSError]:
        """Remove leases and the attachment's entry; goes on after an error, returns them all."""
        errors = []
        for name in names:
            self._changed = True
            try:
                os.unlink(name, dir_fd=self.dir_fd)
            except FileNotFoundError:
                pass
            except OSError as error:
                errors.append(error)
        if not errors and self._current and self.index.fits(owner):
            self._changed = True
            try:
                self.index.remove(owner)
            except OSError:
                self._current = False
        return errors

    def leases(self) -> Iterator[Lease]:
        """Read every lease. The one expensive way to look at them: as many reads as leases."""
        for name in os.listdir(self.dir_fd):
            try:
                parse_address(name)
                mtime = os.stat(name, dir_fd=self.dir_fd, follow_symlinks=False).st_mtime
            except (ValueError, FileNotFoundError):
                continue
            content = self.content(name)
            if content is not None:
                yield Lease(name, content, mtime)

    def names(self) -> set[str]:
        """Return the names in the directory; those of leases are addresses."""
        return set(os.listdir(self.dir_fd))

    # ------------------------------------------------------------------------- round robin

    def last_reserved(self, range_index: int) -> Address | None:
        """Return the address that the range set gave last; None if unknown."""
        content = _read(f"{_LAST}{range_index}", self.dir_fd)
        try:
            return parse_address((content or b"").rstrip(b"\0").decode())
        except ValueError:
            return None

    def set_last_reserved(self, range_index: int, address: Address) -> None:
        """Note the address that the range set gave last.

        In place: replacing the file, by rename or O_TRUNC, makes ext4 write it out at once, which
        costs more than the rest of an ADD. A shorter text is padded before the file is cut: the
        state between the two is no address, and Go's plugin then starts from the beginning.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(f"{_LAST}{range_index}", flags, 0o600, dir_fd=self.dir_fd)
        try:
            text = str(address).encode()
            size = os.fstat(fd).st_size
            os.pwrite(fd, text.ljust(size, b"\0"), 0)
            if size > len(text):
                os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    # ------------------------------------------------------------------------------ inside

    def _publish(self, draft: _Draft, name: str) -> bool:
        """Link the draft to the address's name; False when somebody holds the address."""
        self._changed = True
        self._made.append((name, draft.inode))  # before: an interrupt may come at any point
        if draft.link(name):
            return True
        if self._is_empty(name):
            os.unlink(name, dir_fd=self.dir_fd)
            if draft.link(name):
                return True
        self._made.pop()
        return False

    def _is_empty(self, name: str) -> bool:
        try:
            stat = os.stat(name, dir_fd=self.dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.st_size == 0 and stat.st_mode & 0o170000 == 0o100000

    def _roll_back(self) -> None:
        """Remove the leases of this visit, and no others: the inode tells."""
        while self._made:
            name, inode = self._made[-1]
            try:
                if os.stat(name, dir_fd=self.dir_fd, follow_symlinks=False).st_ino == inode:
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

    def _names(self, owner: Owner) -> list[str]:
        if self._owners is None and (not self._current or not self.index.fits(owner)):
            self._owners = self._walk()
            if not self._current:
                self._rebuild(self._owners)
        if self._owners is not None:
            return self._owners.get(owner, [])
        entry = self.index.read(owner)
        return entry.addresses if entry else []

    def _walk(self) -> dict[Owner, list[str]]:
        """Read every file of the directory and sort the leases by owner."""
        owners: dict[Owner, list[str]] = {}
        for name in os.listdir(self.dir_fd):
            if name == "lock" or name.startswith(_LAST):
                continue
            owner = self.owner(name)
            if owner is not None and name != _DRAFT:
                owners.setdefault(owner, []).append(name)
        return owners

    def _rebuild(self, owners: dict[Owner, list[str]]) -> None:
        """Write the index anew; where that cannot be done, every call walks."""
        try:
            _unlink(_DRAFT, self.dir_fd)
            self.index.rebuild(owners)
            self._current = self._changed = True
        except OSError:
            pass

    def _seal(self) -> None:
        try:
            self.index.seal(self.dir_fd)
        except OSError:  # then the next call walks
            pass


class _Draft:
    """A complete lease without a name, or, where the file system cannot, with a hidden one."""

    __slots__ = ("_fd", "_named", "_store", "inode")

    def __init__(self, store: Store, text: str) -> None:
        self._store = store
        self._named = False
        content = text.encode("utf-8", "surrogateescape")
        try:
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
            self._fd = os.open(".", flags, 0o600, dir_fd=store.dir_fd)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            _unlink(_DRAFT, store.dir_fd)
            self._named = True
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            self._fd = os.open(_DRAFT, flags, 0o600, dir_fd=store.dir_fd)
        try:
            _write(self._fd, content)
            self.inode = os.fstat(self._fd).st_ino
        except BaseException:
            self.__exit__()
            raise

    def link(self, name: str) -> bool:
        """Give the draft a name; False when the name is taken."""
        dir_fd = self._store.dir_fd
        source = _DRAFT if self._named else f"/proc/self/fd/{self._fd}"
        try:
            os.link(source, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=True)
        except FileExistsError:
            return False
        return True

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._named:
            _unlink(_DRAFT, self._store.dir_fd)

"""Which addresses an attachment holds, without reading every lease: a cache beside the leases.

`<dataDir>/.index/<network>/` has one symbolic link an attachment, `<containerID>:<ifname>` (no
ifname for leases in the old format), whose target lists the addresses and the network namespace:
`10.5.0.2,fd00::2 4:4026532221 /run/netns/x`. A link is made in one step and is never seen
half-written. No network is called `.index`: names begin with a letter or digit.

Trust. Nothing here is needed; what counts are the lease files. After each change of ours the two
directories' modification times are set exactly `SHIFT_NS` apart. Whatever happens to one of them
later, by Go's plugin, by an administrator, by a call of ours that was killed half-way, sets a
time of the kernel's, and the pair does not match any more: the next call walks the leases once
and writes the index anew. The lease directory's time is moved one nanosecond off the kernel's
own value, so that a change within the same clock tick is seen as well.
An entry is a hint even then: a lease is used only after its file has said the same.

Knows nothing of the lease files' format. Only OSError comes out; callers treat it as "no index".
"""

from __future__ import annotations

import errno
import os

from cni import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Args

    Owner = tuple[str, str]  # container ID and ifname; no ifname in the old lease format

SHIFT_NS = 1_000_000_000 * 1_000_000_000  # whole, even seconds: file systems may round to two
_NAME_BYTES = 255  # NAME_MAX
_TARGET_BYTES = 4095  # PATH_MAX without its NUL

# No such file, nor a symbolic link, nor a name that one could have.
_NO_ENTRY = (errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG)


NOBODY: Owner = ("", "")  # whose entry lists addresses in use by somebody who is not known


class Entry:
    """What the index says of one attachment; `netns_id` and `netns_path` may be empty.

    An ID is a network namespace's. (Earlier versions took whatever the path led to.)
    """

    __slots__ = ("addresses", "netns_id", "netns_path")

    def __init__(self, addresses: list[str], netns_id: str = "", netns_path: str = "") -> None:
        self.addresses = addresses
        self.netns_id = netns_id
        self.netns_path = netns_path

    def __str__(self) -> str:
        text = ",".join(self.addresses)
        if not self.netns_path:
            return text
        longer = f"{text} {self.netns_id} {self.netns_path}"
        return longer if len(os.fsencode(longer)) <= _TARGET_BYTES else text


class Index:
    """The cache of one network; `path` need not exist."""

    __slots__ = ("path",)

    def __init__(self, data_dir: str, network: str) -> None:
        self.path = f"{data_dir}/.index/{network}"

    def fits(self, owner: Owner) -> bool:
        """Whether the attachment can be a file name; if not, it is never in the index."""
        return len(os.fsencode(_name(owner))) <= _NAME_BYTES

    def matches(self, leases_fd: int) -> bool:
        """Whether nobody has changed the leases or the index since `seal`."""
        try:
            ours = os.stat(self.path, follow_symlinks=False).st_mtime_ns
        except OSError:
            return False
        return os.stat(leases_fd).st_mtime_ns - ours == SHIFT_NS

    def seal(self, leases_fd: int) -> None:
        """Vouch for the index: every lease in the directory `leases_fd` has its entry."""
        stat = os.stat(leases_fd)
        mtime_ns = stat.st_mtime_ns - 1
        os.utime(leases_fd, ns=(stat.st_atime_ns, mtime_ns))
        os.utime(self.path, ns=(mtime_ns, mtime_ns - SHIFT_NS))

    def read(self, owner: Owner) -> Entry | None:
        """Return the entry of an attachment; OSError when it cannot be known if there is one."""
        try:
            target = os.readlink(f"{self.path}/{_name(owner)}")
        except OSError as error:
            if error.errno in _NO_ENTRY:
                return None
            raise
        return _entry(target)

    def entries(self) -> list[tuple[Owner, Entry]]:
        """Return every entry with its owner."""
        owners = [name.partition(":") for name in os.listdir(self.path)]
        found = [((owner, ifname), self.read((owner, ifname))) for owner, _, ifname in owners]
        return [(owner, entry) for owner, entry in found if entry is not None]

    def write(self, owner: Owner, entry: Entry) -> None:
        """Make or replace an entry."""
        path = f"{self.path}/{_name(owner)}"
        try:
            os.symlink(str(entry), path)
        except FileExistsError:
            os.unlink(path)
            os.symlink(str(entry), path)

    def remove(self, owner: Owner) -> bool:
        """Drop an entry; whether there was one."""
        try:
            os.unlink(f"{self.path}/{_name(owner)}")
        except FileNotFoundError:
            return False
        return True

    def drop(self) -> bool:
        """Remove the whole index, and the folder around it if that is empty; whether one was."""
        found = False
        try:
            for name in os.listdir(self.path):
                os.unlink(f"{self.path}/{name}")
        except FileNotFoundError:
            pass
        for folder in (self.path, os.path.dirname(self.path)):
            try:
                os.rmdir(folder)
                found = True
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                    raise
        return found

    def rebuild(self, owners: dict[Owner, list[str]]) -> None:
        """Make the index say exactly this; what old entries know of namespaces is kept."""
        files.make_folder(self.path, 0o700)
        if os.path.islink(self.path) or os.path.islink(os.path.dirname(self.path)):
            raise NotADirectoryError(errno.ENOTDIR, "a link to somebody's directory", self.path)
        present = set(os.listdir(self.path))
        for owner, addresses in owners.items():
            if not self.fits(owner):
                continue
            old = self.read(owner) if _name(owner) in present else None
            present.discard(_name(owner))
            if old is None:
                self.write(owner, Entry(addresses))
            elif sorted(old.addresses) != sorted(addresses):
                self.write(owner, Entry(addresses, old.netns_id, old.netns_path))
        for name in present:
            os.unlink(f"{self.path}/{name}")


def _name(owner: Owner) -> str:
    return f"{owner[0]}:{owner[1]}"


def _entry(target: str) -> Entry:
    addresses, _, netns = target.partition(" ")
    identity, _, path = netns.partition(" ")
    return Entry(addresses.split(","), identity, path)


def owners_of(args: Args) -> tuple[Owner, Owner]:
    """Return the attachment as leases name it: today's format, and the one before ifnames."""
    return (args.container_id, args.ifname), (args.container_id, "")

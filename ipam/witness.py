"""Whether the holder of a lease is provably gone. In doubt it lives.

What speaks for life, and outweighs all else:
- a network namespace it was attached in is still there: its path leads to it, or a process or a
  mount holds it. The path was recorded at ADD (ipam/index.py); for what Go's plugins attached,
  libcni's cache has it (`/var/lib/cni/results/<network>-<containerID>-<ifname>`);
- its host veth, whose name follows from the attachment (cni/attachment.py), is still there.

What proves death, when nothing speaks for life:
- the lease is older than this boot;
- namespaces are known of it, and every one is gone. Known is what was seen: the index records what
  the path led to at ADD, and libcni's cached result names a path only if a plugin has been inside.
  A path that never led to a namespace (/dev/null, or nothing) says nothing. Nor can a path of a
  process alone (/proc/PID/ns/net): others may be left in the namespace. Nor does a namespace of the
  recorded number show that it is there: the kernel gives the number of one that went to the next
  one that is made, as a rule. If another container is in the namespace of that number now, the
  recorded one is gone.

Reads the kernel and files, changes nothing. Imported only when a pool is full, when an attachment
comes twice, and for GC.
"""

from __future__ import annotations

import os
import time

from cni import files, netns, wire
from cni.attachment import HOST_VETH_NAMES, Attachment
from cni.native import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipam.index import Entry, Owner

_MARGIN_S = 5.0
_MOUNTS = 1 << 26  # bytes of the list of mounts


class Witness:
    """What is known of one network's attachments at this moment; made anew for each sweep."""

    __slots__ = ("_boot", "_living", "_network", "_nsfs", "_proc", "_results_dir", "_tenants")

    def __init__(
        self,
        network: str,
        results_dir: str,
        *,
        proc: str = "/proc",
        run_dir: str = "/run",
    ) -> None:
        self._network = network
        self._results_dir = results_dir
        self._proc = proc
        self._boot = boot_time(run_dir)
        self._nsfs = _device(f"{proc}/self/ns/net")
        self._living: set[int] | None = None
        self._tenants: dict[str, set[str]] = {}  # "device:inode" -> container IDs in it now

    def place(self, container_id: str, netns_path: str, identity: str = "") -> None:
        """Learn who is in which namespace, if the path leads to it (and it is `identity`)."""
        now = netns.identity(netns_path)
        if now and identity in ("", now):
            self._tenants.setdefault(now, set()).add(container_id)

    def proof_of_death(self, owner: Owner | None, mtime: float, entry: Entry | None) -> str:
        """Return why a holder is known to be gone, or "" when it lives or may live.

        `owner` None is a lease that does not say whose it is. `mtime` is the lease file's.
        """
        gone = ""
        unknown = False
        for path, state in self._namespaces(owner, entry) if owner is not None else ():
            if state is False:
                return ""
            unknown = unknown or state is None
            gone = gone or f"its network namespace {path} is gone"
        if mtime < self._boot:
            reason = "the lease is older than this boot"
        else:
            reason = "" if unknown else gone
        return "" if reason and owner is not None and self._has_veth(owner) else reason

    def _has_veth(self, owner: Owner) -> bool:
        container_id, ifname = owner
        if not ifname:
            return False
        attachment = Attachment(self._network, container_id, ifname)
        return any(_is_link(attachment.host_veth_name(n)) for n in range(HOST_VETH_NAMES))

    def _namespaces(self, owner: Owner, entry: Entry | None) -> Iterator[tuple[str, bool | None]]:
        """Give the paths it is known by, and whether what was there is gone (None: unknown)."""
        recorded = ""
        if entry is not None and entry.netns_id.startswith(f"{self._nsfs}:"):
            recorded = entry.netns_path
            yield recorded, self._is_gone(recorded, entry.netns_id, owner[0])
        for name in self._cached(owner):
            path, was_seen = _cached_netns(f"{self._results_dir}/{name}")
            if path and path != recorded:
                yield path, self._has_left(path, was_seen=was_seen)

    def _cached(self, owner: Owner) -> list[str]:
        container_id, ifname = owner
        stem = f"{self._network}-{container_id}-"
        if ifname:
            return [stem + ifname]
        try:
            return [name for name in os.listdir(self._results_dir) if name.startswith(stem)]
        except OSError:
            return []

    def _has_left(self, path: str, *, was_seen: bool) -> bool | None:
        """Whether a namespace of which there is a path alone is gone; None: that is unknown."""
        there = self._at(path)
        if there is None or there:
            return None if there is None else False
        return True if was_seen and not path.startswith("/proc/") else None

    def _at(self, path: str) -> str | None:
        """Return "device:inode" of the namespace at a path, "" if none is, None if unknown."""
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError:
            return None
        if self._nsfs is None:
            return None
        return f"{found.st_dev}:{found.st_ino}" if found.st_dev == self._nsfs else ""

    def _is_gone(self, path: str, identity: str, container_id: str) -> bool | None:
        """Whether a recorded namespace is gone; None when that cannot be known."""
        there = self._at(path)
        if there is None or there == identity:
            return None if there is None else False
        tenants = self._tenants.get(identity)
        if tenants is not None and container_id not in tenants:
            return True
        living = self._living_namespaces()
        return None if living is None else int(identity.partition(":")[2] or 0) not in living

    def _living_namespaces(self) -> set[int] | None:
        """Return the inodes of all processes' and mounts' namespaces; None if not shown."""
        if self._living is None:
            living = set()
            try:
                for pid in os.listdir(self._proc):
                    if pid.isdigit() and pid != "1":  # init may be sealed off, and is in no pod
                        living.add(_namespace_of(f"{self._proc}/{pid}"))
                mounts = files.read(f"{self._proc}/self/mountinfo", _MOUNTS)
                # 512 24 0:4 net:[4026532221] /run/netns/x rw shared:9 - nsfs nsfs rw
                for line in mounts.splitlines():
                    root = line.split(b" ", 4)[3]
                    if root.startswith(b"net:["):
                        living.add(int(root[5:-1]))
            except OSError:
                return None
            self._living = living
        return self._living


def boot_time(run_dir: str = "/run") -> float:
    """Return a wall-clock time, in seconds, that surely lies before this boot, if barely.

    The wall clock may have been set since: then "now minus uptime" lies after the true boot as
    leases of this boot were stamped. /run, a tmpfs, is empty at boot, so nothing in it is older
    than the boot by the clock of that time: the older of the two counts.
    """
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        if os.stat(run_dir).st_dev != os.stat(f"{run_dir}/..").st_dev:
            for name in os.listdir(run_dir):
                boot = min(boot, os.lstat(f"{run_dir}/{name}").st_ctime)
    except OSError:
        pass
    return boot - _MARGIN_S


def _cached_netns(path: str) -> tuple[str, bool]:
    """Return the "netns" of libcni's cached attachment, or "", and whether a plugin was in it."""
    try:
        cached = wire.loads(files.read(path))
    except (OSError, ValueError):
        return "", False
    found = cached.get("netns") if isinstance(cached, dict) else None
    if not isinstance(found, str):
        return "", False
    result = cached.get("result")
    interfaces = result.get("interfaces") if isinstance(result, dict) else None
    links = interfaces if isinstance(interfaces, list) else []
    return found, any(isinstance(one, dict) and one.get("sandbox") == found for one in links)


def _is_link(name: str) -> bool:
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _namespace_of(process: str) -> int:
    """The inode of a process's namespace, 0 if it has ended meanwhile. OSError: it is not shown."""
    try:
        return os.stat(f"{process}/ns/net").st_ino
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:  # of a process that ends this very moment, too (fs/proc/namespaces.c)
        if os.path.exists(process):
            raise
        return 0

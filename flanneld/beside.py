"""Other flannelds on this node: two of one network undo each other's work.

One of ours holds a name for each of its networks: an abstract socket (unix(7)) belongs to the
network namespace that the daemon works in, and ends with the process.  A Go daemon, or one of ours
in an older version, is known by its process alone; those of another PID namespace are not seen.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld import files
from flanneld.desired import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld.desired import AnyNetwork

_NAME = "flanneld"
_COMMANDS = (b"forward", b"status", b"diff", b"explain", b"cleanup")  # they are no daemons


@dataclass(frozen=True, slots=True)
class Other:
    """Another daemon in this network namespace; of one that is not ours ``networks`` is empty."""

    pid: int
    program: str
    networks: frozenset[str]

    def __str__(self) -> str:
        known = f" of the network {' and '.join(sorted(self.networks))}" if self.networks else ""
        return f"another flanneld{known} runs on this node (process {self.pid}, {self.program})"


def hold(networks: Iterable[AnyNetwork]) -> list[socket.socket]:
    """Be the only daemon of these networks, and of parts of them, until the sockets are closed.

    ``files.Locked`` names the one that there is.  OSError.
    """
    wanted = list(networks)
    with ExitStack() as stack:
        held = [stack.enter_context(_bind(network)) for network in wanted]
        told = set(_names().values()) - set(map(str, wanted))
        for network in wanted:
            for name in told:
                if _overlap(name, network):
                    raise _locked(name)
        stack.pop_all()
    return held


def _bind(network: AnyNetwork) -> socket.socket:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0{_NAME} {network}")
    except OSError as error:
        name.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise _locked(str(network)) from None
    return name


def _locked(network: str) -> files.Locked:
    found = [str(other) for other in others() if network in other.networks]
    anonymous = f"another flanneld of the network {network} runs on this node"
    return files.Locked("; ".join(found) or anonymous)


def _overlap(name: str, network: AnyNetwork) -> bool:
    """Whether a name is that of a network which has addresses of this one."""
    try:
        other = ip_network(name)
    except ValueError:
        return False
    return is_inside(other, [network]) or is_inside(network, [other])


def others() -> list[Other]:
    """Find all other daemons in this network namespace."""
    names = _names()
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if pid != os.getpid() and _is_daemon(Path(f"/proc/{pid}")):
                program = os.readlink(f"/proc/{pid}/exe")
                networks = frozenset(names[inode] for inode in _sockets(pid) if inode in names)
                found.append(Other(pid, program, networks))
        except OSError:  # it has ended meanwhile
            continue
    return found


def warnings() -> list[str]:
    """Name those that may be of a network of this daemon."""
    return [
        f"{other}: if it is of this network too, each undoes the other's work; stop one of them"
        for other in others()
        if not other.networks
    ]


def _is_daemon(process: Path) -> bool:
    """Whether a process is a flanneld in this network namespace, and no child of one."""
    if not (process / "comm").read_bytes().startswith(_NAME.encode()):  # also flanneld-amd64
        return False
    words = (process / "cmdline").read_bytes().split(b"\0")
    if any(word in _COMMANDS for word in words[1:2]):
        return False
    return (process / "ns/net").stat().st_ino == os.stat("/proc/self/ns/net").st_ino


def _sockets(pid: int) -> Iterator[str]:
    """Give the inodes of the sockets that a process has open."""
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        target = os.readlink(os.path.join(folder, fd))
        if target.startswith("socket:["):
            yield target[8:-1]


def _names() -> dict[str, str]:
    """Give the networks that daemons hold here, by the inodes of their sockets (proc(5))."""
    lines = Path("/proc/net/unix").read_text(encoding="ascii", errors="replace").splitlines()
    found = (line.split(maxsplit=7) for line in lines[1:])
    prefix = f"@{_NAME} "
    return {
        words[6]: words[7].removeprefix(prefix)
        for words in found
        if len(words) == 8 and words[7].startswith(prefix)
    }

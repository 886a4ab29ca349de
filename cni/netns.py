"""Compare CNI_NETNS with the network namespace we run in, before anything is changed.

A runtime may hand over a /proc/<pid>/ns/net whose process has died and whose pid now belongs to
somebody in the host's namespace: deleting an interface there would cut off the node. Namespaces
are files of one file system (nsfs): equal device and inode mean the same one (namespaces(7)).
Changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os

from cni import files
from cni.errors import INVALID_NETNS, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Args

OWN = "/proc/thread-self/ns/net"
CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # _IO(NSIO, 0x3), Linux 4.11: ioctl_nsfs(2)
_NO_SUCH_IOCTL = (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_OVERRIDES = ("1", "true")


def check(args: Args, *, needed: bool = True) -> None:
    """CNIError 8 when CNI_NETNS is our own namespace, or no namespace although one is needed.

    For DEL a path that is empty, missing or something else means that the namespace is gone
    already, which is fine. So it is for a plugin that works outside of namespaces (`needed`
    false). CNI_NETNS_OVERRIDE lets a plugin work in its own namespace.
    """
    path = args.netns_file
    problem = ""
    try:
        found = os.stat(path)
        own = os.stat(OWN)
    except (OSError, ValueError) as error:
        problem = _reason(error)
    else:
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            _refuse_own(args)
        elif found.st_dev != own.st_dev:
            what = files.kind(found.st_mode) or "a plain file"
            problem = f"it is {what}, not a network namespace"
    if problem and needed and args.command != "DEL":
        raise CNIError(
            INVALID_NETNS,
            f"network namespace {args.netns!r} cannot be used: {problem}",
            "CNI_NETNS must be the path of a container's network namespace, "
            "such as /run/netns/NAME or /proc/PID/ns/net",
        )


def _refuse_own(args: Args) -> None:
    if args.environ.get("CNI_NETNS_OVERRIDE", "").lower() not in _OVERRIDES:
        raise CNIError(
            INVALID_NETNS,
            "plugin's netns and netns from CNI_NETNS should not be the same",
            f"{args.netns} is the network namespace that this plugin runs in; nothing was "
            "changed. CNI_NETNS_OVERRIDE=1 allows it",
        )


def _reason(error: OSError | ValueError) -> str:
    """Say why a path could not be looked at, without the words that a runtime takes for success."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"nothing is there (errno {error.errno})"
    return str(error.strerror if isinstance(error, OSError) else error)


def type_of(fd: int) -> int:
    """Return the CLONE_ flag of an open namespace; 0 for a plain file.

    Any other failure is an OSError: DEL must not take a living namespace for one that is gone.
    """
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        if error.errno not in _NO_SUCH_IOCTL:
            raise
        return 0


def identity(path: str) -> str:
    """Return "device:inode" of the network namespace that a path leads to; "" if to none."""
    try:
        found = os.stat(path)
        if found.st_dev != os.stat(OWN).st_dev:
            return ""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            is_network = type_of(fd) == CLONE_NEWNET
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return ""
    return f"{found.st_dev}:{found.st_ino}" if is_network else ""

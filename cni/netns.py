"""Compare CNI_NETNS with the network namespace we run in, before anything is changed.

A runtime may hand over a /proc/<pid>/ns/net whose process has died and whose pid now belongs to
somebody in the host's namespace: deleting an interface there would cut off the node. Namespaces
are files of one file system (nsfs): equal device and inode mean the same one (namespaces(7)).
Opens and changes nothing.
"""

from __future__ import annotations

import os
import stat

from cni.errors import INVALID_NETNS, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Args

OWN = "/proc/thread-self/ns/net"
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
            problem = f"it is {_kind(found.st_mode)}, not a network namespace"
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


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a plain file" if stat.S_ISREG(mode) else "a special file"

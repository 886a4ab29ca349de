"""What the runtime reads when a system call on the leases failed.

Imported only then.
"""

from __future__ import annotations

import errno

from cni.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, CNIError

_PERMISSION = "run the plugin as root, and look at the owner and mode of the directory"
_ELSEWHERE = "look at the file and its file system, or set ipam.dataDir to another directory"
_IN_THE_WAY = "a file is where a directory should be: move it away, or change ipam.dataDir"
_REMEDIES = {
    errno.ENOSPC: "free some space or inodes on its file system",
    errno.EDQUOT: "raise the quota, or free some space",
    errno.EROFS: "remount its file system writable, or set ipam.dataDir to a writable directory",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EIO: "look at the kernel log: the disk has errors",
}


def io_error(what: str, path: str, error: OSError) -> CNIError:
    """Make the runtime's error of a failed system call on the leases in `path`."""
    name = error.filename2 or error.filename
    if isinstance(name, str) and name != "." and not name.startswith("/proc/"):
        path = name if name.startswith("/") else f"{path}/{name}"
    number = error.errno or 0
    if number == errno.ENAMETOOLONG:
        msg = f"{what}: {path}: the name is too long"
        return CNIError(INVALID_NETWORK_CONFIG, msg, "a file name has at most 255 bytes")
    # containerd takes "no such file or directory" for "there is nothing left to do"
    cause = "it does not exist" if number == errno.ENOENT else str(error.strerror).lower()
    return CNIError(IO_FAILURE, f"{what}: {path}: {cause}", _REMEDIES.get(number, _ELSEWHERE))

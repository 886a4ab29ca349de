"""The transmit checksum offload of a device: ``ethtool -K DEV tx on|off``.

Knows: SIOCETHTOOL and its two commands (linux/ethtool.h, linux/sockios.h). There is a netlink
family for this, but it is younger, and a second socket.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM = 0x16
_ETHTOOL_STXCSUM = 0x17
_IFREQ = struct.Struct("16sP16x")  # name, pointer to the command


def read(name: str) -> bool | None:
    """Whether it is on; None if there is no such device, or it has no such setting."""
    try:
        return bool(_ask(name, _ETHTOOL_GTXCSUM, 0))
    except OSError as error:
        if error.errno in {errno.ENODEV, errno.EOPNOTSUPP}:
            return None
        raise


def write(name: str, *, on: bool) -> None:
    """Switch it. OSError as the kernel gives it."""
    _ask(name, _ETHTOOL_STXCSUM, int(on))


def _ask(name: str, command: int, value: int) -> int:
    asked = array.array("I", [command, value])  # struct ethtool_value
    address, _length = asked.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ioctl_socket:
        fcntl.ioctl(ioctl_socket, _SIOCETHTOOL, _IFREQ.pack(name.encode(), address))
    return asked[1]

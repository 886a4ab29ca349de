"""The TUN device (linux/if_tun.h): made, and kept up with its MTU.

A packet that is read or written has a ``virtio_net_hdr`` before it: without it, no batch of
segments could be written as one.  The device lives as long as its descriptor.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_PATH = "/dev/net/tun"
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU = 0x8913, 0x8914, 0x8921, 0x8922
_SIOCSIFTXQLEN = 0x8943
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sH22x")  # struct ifreq with ifr_flags
_IFREQ_INT = struct.Struct("16si20x")  # with ifr_mtu, ifr_qlen
_QUEUE = 4096  # packets; a batch is read while the next ones come


class TunError(Exception):
    """The device cannot be had.  ``str`` says which, why, and what to do."""


class Tun:
    """A TUN device of this process's network namespace, by its exact name."""

    def __init__(self, name: str) -> None:
        """Make the device; TunError if that cannot be."""
        self.name = name
        try:
            self.fd = os.open(_PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TunError(
                f"open {_PATH} for {name}: {error.strerror}: the udp backend needs the module tun"
                " and the device node (mount the host's /dev/net/tun into a container)"
            ) from error
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
            # Nothing is left to us: checksums are whole and packets fit, by the kernel's own hand.
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, 0)
        except OSError as error:
            os.close(self.fd)
            raise TunError(
                f"make the TUN device {name}: {error.strerror}: delete a device of that name, or"
                " stop the other program that has it (another flanneld with the udp backend?)"
            ) from error

    def close(self) -> None:
        """Let the device go, with its addresses and routes."""
        os.close(self.fd)

    def set_up(self, mtu: int) -> bool:
        """Give the device its MTU and set it up; whether anything was to be done.

        OSError, with ENODEV if somebody has deleted the device.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            name = self.name.encode()
            reply = fcntl.ioctl(way, _SIOCGIFMTU, _IFREQ_INT.pack(name, 0))
            now = _IFREQ_INT.unpack(reply)[1]
            if now != mtu:
                fcntl.ioctl(way, _SIOCSIFMTU, _IFREQ_INT.pack(name, mtu))
            flags = _IFREQ.unpack(fcntl.ioctl(way, _SIOCGIFFLAGS, _IFREQ.pack(name, 0)))[1]
            if not flags & _IFF_UP:
                fcntl.ioctl(way, _SIOCSIFTXQLEN, _IFREQ_INT.pack(name, _QUEUE))
                fcntl.ioctl(way, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))
        return now != mtu or not flags & _IFF_UP

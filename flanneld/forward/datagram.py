"""The UDP socket between the nodes: one for both directions, so that the ports agree (udp(7))."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 8 << 20  # bytes; without CAP_NET_ADMIN the socket would not be here


class SocketError(Exception):
    """The socket cannot be had.  ``str`` says where, why, and what to do."""


def bound(address: IPv4Address, port: int) -> socket.socket:
    """Make the socket, not blocking, at this address and port; SocketError if that cannot be."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        made.setsockopt(SOL_UDP, UDP_GRO, 1)
        # Where the way is narrower than the interface, datagrams are fragmented, not lost.
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        made.bind((str(address), port))
    except OSError as error:
        made.close()
        raise SocketError(
            f"bind UDP port {port} at {address}: {error.strerror}: stop what has the port (ss -lunp"
            ' shows it), or choose another "Port" in the backend\'s configuration, on all nodes'
        ) from error
    return made

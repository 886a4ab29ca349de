"""``flanneld forward``: the process that forwards packets of the udp backend.  Not for people.

The daemon starts it with the TUN device and the socket as open descriptors, and tells it the table
of nodes as lines of JSON on stdin, a whole one each time.  Lines of JSON on stdout are what it
drops (``forward.drops``).  It ends when the daemon does (stdin's
end), and when a descriptor breaks; the daemon starts another, and the device outlives it.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from flanneld import logs, privileges
from flanneld.forward.drops import Drops
from flanneld.forward.forwarder import Forwarder
from flanneld.forward.keeper import BROKEN
from flanneld.forward.table import Gate, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_TURNS = 8  # batches of one direction before the other and the daemon have theirs
_STDIN, _STDOUT = 0, 1

_log = logging.getLogger(__name__)


async def run(argv: Sequence[str]) -> int:
    """Forward until stdin ends.  Nothing is awaited: this process does nothing else."""
    parser = argparse.ArgumentParser("flanneld forward", description=__doc__)
    parser.add_argument("--tun", type=int, required=True, help="descriptor of the TUN device")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the UDP socket")
    parser.add_argument("--mtu", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--network", required=True, help="where packets come from")
    parser.add_argument("--subnet", required=True, help="where packets go to")
    parser.add_argument("--strict", action="store_true", help="drop what no node has sent")
    args = parser.parse_args(argv)
    forwarder = Forwarder(
        args.tun,
        socket.socket(fileno=args.socket),
        Gate(args.network, args.subnet),
        mtu=args.mtu,
        port=args.port,
        strict=args.strict,
    )
    logs.set_up(logging.INFO)
    for number in (signal.SIGINT, signal.SIGTERM):
        # What stops the daemon (a terminal, a service manager) may be sent to its children too:
        # it is for the daemon to say when nobody needs packets any more.
        signal.signal(number, signal.SIG_IGN)
    try:
        privileges.drop()  # the device and the socket are open
    except OSError as error:
        _log.warning("the forwarder keeps capabilities that it does not need: %s", error)
    gc.disable()  # no cycles are made, and a pause costs packets
    try:
        _forward(forwarder, args.tun, args.socket)
    except OSError as error:
        _log.error("forwarding ends: %s", error)
        return BROKEN
    return 0


def _forward(forwarder: Forwarder, tun: int, sock: int) -> None:
    """Serve the three descriptors in turn until stdin ends; packets wait for the first table."""
    for fd in (_STDIN, _STDOUT):
        os.set_blocking(fd, False)
    lines = bytearray()
    drops = Drops(forwarder.dropped, _STDOUT)
    nothing = forwarder.table
    with select.epoll() as poll:
        poll.register(_STDIN, select.EPOLLIN)
        while forwarder.table is nothing:
            poll.poll()
            if not _listen(forwarder, lines):
                return
        poll.register(tun, select.EPOLLIN)
        poll.register(sock, select.EPOLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(drops.wait())}
            if _STDIN in ready and not _listen(forwarder, lines):
                return
            sending, receiving = tun in ready, sock in ready
            for _ in range(_TURNS):
                sending = sending and forwarder.send_batch()
                receiving = receiving and forwarder.receive_batch()
                if not sending and not receiving:
                    break
            drops.tell()


def _listen(forwarder: Forwarder, lines: bytearray) -> bool:
    """Take what the daemon says; False when it says no more."""
    try:
        heard = os.read(_STDIN, 1 << 16)
    except BlockingIOError:
        return True
    lines += heard
    while (end := lines.find(b"\n")) >= 0:
        forwarder.table = Table(json.loads(lines[:end]))
        del lines[: end + 1]
    return bool(heard)

"""Forwarding between the TUN device and the UDP socket, in batches (udp backend of the Go daemon).

Each datagram is one whole IPv4 packet and nothing else.  Packets are read one by one, which is all
that a TUN device offers, until there is no more or the batch is full; what goes to one node leaves
by one system call.  In the other direction the kernel joins datagrams, and ``merge`` what is in
them.  Knows nothing of leases, and nothing but its two descriptors of the system.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from flanneld.forward import merge, packet
from flanneld.forward.datagram import SOL_UDP, UDP_GRO, UDP_SEGMENT
from flanneld.forward.runs import most, runs
from flanneld.forward.table import Table

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from flanneld.forward.runs import Run
    from flanneld.forward.table import Gate

_LARGEST = 1 << 16
_INT = struct.Struct("i")
_SHORT = struct.Struct("H")
_ANCILLARY = 64  # bytes: one control message with an int
_NEVER_SEGMENTED = 5  # EIO: the way out has no checksum offload, which UDP_SEGMENT needs


class Forwarder:
    """One device and one socket, both not blocking.

    ``gate`` says what may come in.  ``port`` is the same at all nodes.  ``strict``: datagrams from
    an address that is no node's are dropped.  ``dropped`` counts packets by the reason.
    """

    def __init__(
        self, tun: int, sock: socket.socket, gate: Gate, *, mtu: int, port: int, strict: bool
    ) -> None:
        self.table = Table({})
        self.dropped: Counter[str] = Counter()
        self._tun = tun
        self._gate = gate
        self._socket = sock
        self._mtu = mtu
        self._port = port
        self._strict = strict
        self._read: Callable[[list[bytearray | memoryview]], int] = partial(os.readv, tun)
        self._segments = True
        self._most = most(mtu)
        self._out = bytearray(self._most * mtu)
        self._out_view = memoryview(self._out)
        self._slots: list[list[bytearray | memoryview]] = [
            [bytearray(len(merge.NO_VNET)), self._out_view[at : at + mtu]]
            for at in range(0, self._most * mtu, mtu)
        ]
        self._in = bytearray(_LARGEST)
        self._in_view = memoryview(self._in)
        self._in_vector = [self._in_view]

    # -------------------------------------------------------------------------- device to socket

    def send_batch(self) -> bool:
        """Forward what the device has, up to a batch; whether there may be more."""
        read: list[int] = []
        try:
            # A list keeps what it was extended by before the device had no more.
            read.extend(map(self._read, self._slots))
        except BlockingIOError:
            if not read:
                return False
        lengths = [size - len(merge.NO_VNET) for size in read]
        for run in runs(lengths, self._nodes(lengths)):
            self._send(run, lengths)
        return len(read) == self._most

    def _nodes(self, lengths: Sequence[int]) -> list[str | None]:
        """Find each packet's node; None for those that are answered or dropped here."""
        count = len(lengths)
        destinations = packet.destinations(self._out, self._mtu, count)
        if min(lengths) < packet.HEADER:  # what stands behind a scrap is of an earlier packet
            destinations = [
                destination if length >= packet.HEADER else b""
                for destination, length in zip(destinations, lengths, strict=True)
            ]
        nodes = list(map(self.table.node, destinations))
        if None in nodes:
            for index, node in enumerate(nodes):
                if node is None:
                    self._refuse(index, destinations[index])
        for index in packet.lower_ttls(self._out, self._mtu, count):
            nodes[index] = None
            self.dropped["time to live"] += 1
        return nodes

    def _refuse(self, index: int, destination: bytes) -> None:
        """Tell the sender that there is no way, if it is one to be told."""
        if not destination:  # a scrap, or what the kernel says to IPv6 neighbours on any device
            return
        self.dropped["no node"] += 1
        at = index * self._mtu
        if answer := packet.unreachable(self._out_view[at : at + self._mtu]):
            self._write([merge.NO_VNET, answer])

    def _send(self, run: Run, lengths: Sequence[int]) -> None:
        stride = self._mtu
        to = (run.node, self._port)
        if run.end - run.start == 1 or not self._segments:
            self._send_each(run, lengths)
            return
        if run.length == stride:
            vector = [
                self._out_view[run.start * stride : (run.end - 1) * stride + lengths[run.end - 1]]
            ]
        else:
            vector = [
                self._out_view[index * stride : index * stride + lengths[index]]
                for index in range(run.start, run.end)
            ]
        try:
            self._socket.sendmsg(vector, [(SOL_UDP, UDP_SEGMENT, _SHORT.pack(run.length))], 0, to)
        except BlockingIOError:
            self.dropped["socket full"] += run.end - run.start
        except OSError as error:
            # A path with a smaller MTU is for single datagrams: they may be fragmented.
            self._segments = error.errno != _NEVER_SEGMENTED
            self._send_each(run, lengths)

    def _send_each(self, run: Run, lengths: Sequence[int]) -> None:
        to = (run.node, self._port)
        for index in range(run.start, run.end):
            at = index * self._mtu
            try:
                self._socket.sendto(self._out_view[at : at + lengths[index]], to)
            except OSError as error:
                self.dropped[f"send {error.strerror}"] += 1

    # -------------------------------------------------------------------------- socket to device

    def receive_batch(self) -> bool:
        """Forward what one reading of the socket gives; whether there may be more."""
        try:
            size, ancillary, _, (source, _) = self._socket.recvmsg_into(self._in_vector, _ANCILLARY)
        except BlockingIOError:
            return False
        except OSError as error:  # an ICMP error about what was sent
            self.dropped[f"receive {error.strerror}"] += 1
            return True
        if self._strict and source not in self.table.nodes:
            self.dropped["not from a node"] += 1
            return True
        stride = size
        for level, kind, data in ancillary:
            if (level, kind) == (SOL_UDP, UDP_GRO):
                (stride,) = _INT.unpack(data)
        if not stride:
            return True
        for vector in merge.merged(self._in, self._in_view, size, stride, self._admits):
            self._write(vector)
        return True

    def _admits(self, buffer: bytearray, at: int) -> bool:
        admitted = self._gate.admits(buffer, at)
        if not admitted:
            self.dropped["not pod to pod"] += 1
        return admitted

    def _write(self, vector: merge.Vector) -> None:
        try:
            os.writev(self._tun, vector)
        except OSError as error:
            self.dropped[f"write {error.strerror}"] += 1

"""A netlink socket: requests out, acknowledgements and answers in. Everything is synchronous.

Knows: socket options, sequence numbers, batches, dumps (netlink(7), rtnetlink(7)). Must not
know: what a message means (``rtnl``). The only place that opens a netlink socket. The kernel
answers before ``sendmsg`` returns, and continues a dump inside ``recvmsg``, so that no read
here ever waits: silence is an error, not a hang. (``events`` waits, for others.)
Imports errno, cni.native.
"""

from __future__ import annotations

import errno

from cni.native import socket
from netlink import netns, nlmsg, rtnl
from netlink.nlmsg import NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from netlink.nlmsg import Message

BATCH = 128
"""Requests per ``sendmsg``: all their answers must fit in the receive buffer at once."""

DUMP_ATTEMPTS = 50
"""How often a dump is read again because something changed while it ran."""

_NETLINK_ROUTE = 0
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 1 << 20  # a link costs 3.3 KiB of it; the default holds 64
SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_MSG_TRUNC = 0x20
_MSG_DONTWAIT = 0x40
BUFFER = 1 << 16  # the kernel fills dumps up to 32 KiB; one link with statistics takes 2
_BUFFER_MAX = 1 << 22


class Handle:
    """A netlink route socket in one network namespace, wherever its thread goes later."""

    __slots__ = ("_buffer", "_seq", "_socket")

    def __init__(self, netns_fd: int | None = None) -> None:
        """Open in the namespace ``netns_fd``, or in the thread's own. OSError."""
        self._seq = 0
        self._buffer = BUFFER
        if netns_fd is None:
            self._socket = open_socket()
        else:
            with netns.entered(netns_fd):
                self._socket = open_socket()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; more than once does no harm."""
        self._socket.close()

    def execute(self, *messages: Message) -> list[Message | None]:
        """Send all messages in one system call and return what each was answered, or None.

        The kernel goes through a batch to its end, without heed to signals, and past requests
        that it refuses: the NetlinkError of the first refused one has its ``position``, those
        of the others are in its ``also``, and everything not named there was carried out.
        Answers come from requests that read (``rtnl.get_link``). No atomicity beyond that: the
        caller undoes. More than BATCH messages take several system calls. ENOBUFS and EPROTO
        mean that acknowledgements are missing: what was done is then unknown.
        """
        answers: list[Message | None] = []
        refusals: list[NetlinkError] = []
        for start in range(0, len(messages), BATCH):
            self._execute(messages[start : start + BATCH], answers, refusals)
        if refusals:
            first = refusals[0]
            first.also = tuple(refusals[1:])
            raise first
        return answers

    def _execute(
        self,
        messages: tuple[Message, ...],
        answers: list[Message | None],
        refusals: list[NetlinkError],
    ) -> None:
        first, offset = self._seq + 1, len(answers)
        self._seq += len(messages)
        answers += [None] * len(messages)
        flags = nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_ACK
        self._send([nlmsg.pack(m, first + i, flags) for i, m in enumerate(messages)])
        missing = len(messages)
        while missing:
            for reply in self._receive():
                position = reply.seq - first
                if not 0 <= position < len(messages):
                    continue
                if reply.type != nlmsg.NLMSG_ERROR:
                    answers[offset + position] = reply
                    continue
                missing -= 1
                refusal = nlmsg.refusal(reply)
                if refusal is not None:
                    refusal.position = offset + position
                    refusals.append(refusal)

    def dump(self, message: Message) -> list[Message]:
        """Send a dump request and return its whole answer.

        Read again when something changed meanwhile (NLM_F_DUMP_INTR), when the answer did not
        fit the buffer, or when an abandoned dump is still in the way. NetlinkError EINTR when
        DUMP_ATTEMPTS were not enough.
        """
        for _ in range(DUMP_ATTEMPTS):
            try:
                replies = self._dump(message)
            except OSError as error:
                if error.errno not in {errno.EBUSY, errno.ENOBUFS, errno.EMSGSIZE}:
                    raise
                if error.errno == errno.EMSGSIZE and self._buffer > _BUFFER_MAX:
                    raise
                continue
            if replies is not None:
                return replies
        raise NetlinkError(errno.EINTR, f"changed during each of {DUMP_ATTEMPTS} dumps")

    def _dump(self, message: Message) -> list[Message] | None:
        self._seq += 1
        self._send([nlmsg.pack(message, self._seq, nlmsg.NLM_F_REQUEST | nlmsg.NLM_F_DUMP)])
        replies: list[Message] = []
        interrupted = 0
        while True:
            for reply in self._receive():
                if reply.seq != self._seq:
                    continue
                interrupted |= reply.flags & nlmsg.NLM_F_DUMP_INTR
                if reply.type not in {nlmsg.NLMSG_DONE, nlmsg.NLMSG_ERROR}:
                    replies.append(reply)
                    continue
                refusal = nlmsg.refusal(reply)
                if refusal is not None:
                    raise refusal
                return None if interrupted else replies

    def _send(self, packed: list[bytes]) -> None:
        self._socket.sendmsg(packed, (), 0, (0, 0))

    def _receive(self) -> list[Message]:
        """Return the messages of one datagram from the kernel."""
        while True:
            try:
                data, _ancillary, flags, sender = self._socket.recvmsg(
                    self._buffer, 0, _MSG_DONTWAIT
                )
            except BlockingIOError:
                raise NetlinkError(errno.EPROTO, "the kernel sent no reply") from None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                raise NetlinkError(errno.ENOBUFS, "replies were lost") from None
            if sender[0] != 0:  # another process may write to our port
                continue
            if flags & _MSG_TRUNC:
                self._buffer *= 2
                raise NetlinkError(
                    errno.EMSGSIZE, f"a reply of more than {self._buffer // 2} bytes"
                )
            return nlmsg.unpack(data)

    def get_link(self, link: int | str, nsid: int | None = None) -> rtnl.Link | None:
        """Read one link by ifindex or name, in the namespace ``nsid``; None when there is none."""
        try:
            (answer,) = self.execute(rtnl.get_link(link, nsid))
        except NetlinkError as error:
            if error.errno == errno.ENODEV or (nsid is not None and error.errno == errno.EINVAL):
                return None  # EINVAL: no namespace has that id any more
            raise
        return None if answer is None else rtnl.Link.decode(answer)

    def links(self, *, master: int | None = None, kind: str | None = None) -> list[rtnl.Link]:
        """List all links, or those of one bridge, or of one kind."""
        found = map(rtnl.Link.decode, self.dump_of(rtnl.dump_links(master=master, kind=kind)))
        return [
            link
            for link in found
            if (master is None or link.master == master) and (kind is None or link.kind == kind)
        ]

    def addresses(
        self, index: int = 0, family: int = 0, nsid: int | None = None
    ) -> list[rtnl.InterfaceAddress]:
        """List the addresses of one link, or of all; none when the link is gone.

        With ``nsid`` those in another namespace; none where the kernel cannot tell them.
        """
        replies = self.dump_of(rtnl.dump_addresses(index, family, nsid))
        found = map(rtnl.InterfaceAddress.decode, replies)
        return [one for one in found if index in {0, one.index} and one.nsid == nsid]

    def routes(
        self, family: int, index: int | None = None, table: int | None = None
    ) -> list[rtnl.Route]:
        """List the routes of IP version 4 or 6, of one link or table if given."""
        found = map(rtnl.Route.decode, self.dump_of(rtnl.dump_routes(family, index, table)))
        return [
            route
            for route in found
            if (index is None or route.index == index) and (table is None or route.table == table)
        ]

    def neighbours(self, index: int | None = None, family: int = 0) -> list[rtnl.Neighbour]:
        """List the neighbour entries of one link, or of all."""
        found = map(rtnl.Neighbour.decode, self.dump_of(rtnl.dump_neighbours(index, family)))
        return [entry for entry in found if index is None or entry.index == index]

    def port_vlans(self) -> list[rtnl.PortVLAN]:
        """List the VLANs of every bridge port; none when the kernel cannot filter by VLAN."""
        replies = self.dump(rtnl.dump_port_vlans())
        return [vlan for reply in replies for vlan in rtnl.PortVLAN.decode(reply)]

    def nsid(self, netns_fd: int) -> int | None:
        """Return the id by which this handle's namespace knows another, or None.

        It is what ``Link.link_netnsid`` says of a veth's peer there.
        """
        (answer,) = self.execute(rtnl.get_nsid(netns_fd))
        return None if answer is None else rtnl.decode_nsid(answer)

    def dump_of(self, message: Message) -> list[Message]:
        """Dump what belongs to a link or a table: nothing, when that is gone."""
        try:
            return self.dump(message)
        except NetlinkError as error:
            if error.errno in {errno.ENODEV, errno.ENOENT}:
                return []
            raise


def open_socket() -> socket.socket:
    """Open a netlink route socket in the thread's own namespace, with all options set. OSError."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    # Each of them is newer than what is asked of a kernel otherwise: without, errors have no
    # text, acknowledgements are longer, and dumps are filtered here.
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        try:
            opened.setsockopt(SOL_NETLINK, option, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                opened.close()
                raise
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:  # root of a user namespace: the default, or what is allowed of it
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return opened

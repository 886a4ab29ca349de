"""The two ends an attachment is made between: a netlink handle on the host and one in the pod.

Opened once per call and passed down.  The pod's handle keeps belonging to the pod's namespace,
so no step but the writing of switches has to enter it.
Imports: os, errno, the protocol package, ``netlink``, ``kernel``.
"""

from __future__ import annotations

import errno
import os

from cni import callname, errors
from cni.errors import CNIError
from netlink import netns, rtnl, sysctl
from netlink.handle import Handle
from netlink.nlmsg import GONE, NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from cni.types import Args
    from netlink.events import Events
    from netlink.nlmsg import Message

ALONE_TIMEOUT_S = 10.0


class Ends:
    """``host`` and ``pod`` are netlink handles; ``netns_fd`` is the pod's namespace.

    Made by ``both``, or by ``surviving`` and ``Ends()`` where there may be no pod.  A context
    manager: what the kernel refuses inside and nobody has explained becomes CNIError 101.
    """

    __slots__ = ("_note", "_pod", "_resident", "host", "netns_fd")

    def __init__(self, netns_fd: int = -1, args: Args | None = None) -> None:
        self.netns_fd = netns_fd
        self._pod: Handle | None = None
        self._resident = None if args is None else args.resident
        self._note = None if args is None else args.note
        try:
            self.host = Handle()
        except OSError as error:
            if netns_fd >= 0:
                os.close(netns_fd)
            raise refused(error) from error

    @classmethod
    def both(cls, args: Args, *, alone: bool = False) -> Ends:
        """Open both ends; CNIError 8 if the pod's namespace cannot be opened.

        With ``alone`` wait until no other call has the namespace alone: what looks like a
        killed call's half of an attachment is then no living one's.  The lock is on the file of
        the namespace (flock(2)) and ends with the process, however that ends.  CNIError 11 if it
        does not come in ``ALONE_TIMEOUT_S``.
        """
        try:
            fd = netns.open(args.netns_file)
        except OSError as error:
            raise CNIError(
                errors.INVALID_NETNS,
                f'failed to open netns "{args.netns}": [Errno {error.errno}] {error.strerror}',
                "the container is gone or was never started: the runtime has to make a new one",
            ) from error
        try:
            if alone:
                _lock(fd, args.netns)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, args)

    @classmethod
    def surviving(cls, args: Args) -> Ends:
        """Open the host's end, and the pod's if its namespace still exists."""
        fd = -1
        try:
            if args.netns_file:
                fd = netns.open(args.netns_file)
        except (FileNotFoundError, NotADirectoryError, netns.NotANamespace):
            pass
        except OSError as error:
            raise refused(error) from error
        return cls(fd, args)

    @property
    def has_pod(self) -> bool:
        """Whether the pod's namespace is there."""
        return self.netns_fd >= 0

    @property
    def pod(self) -> Handle:
        """The pod's handle, opened at first use."""
        if self._pod is None:
            self._pod = Handle(self.netns_fd)
        return self._pod

    def entered_pod(self) -> netns.entered:
        """A block in which this thread is in the pod's namespace."""
        return netns.entered(self.netns_fd)

    def pod_address_events(self) -> Events:
        """What happens to the pod's IPv6 addresses from now on."""
        from netlink.events import RTMGRP_IPV6_IFADDR, Events  # for enabledad alone

        return Events(RTMGRP_IPV6_IFADDR, self.netns_fd)

    def host_link_events(self) -> Events:
        """What happens to the host's links from now on."""
        from netlink.events import RTMGRP_LINK, Events  # only where a port comes up late

        return Events(RTMGRP_LINK)

    def host_index(self, name: str) -> int:
        """The ifindex of a host link; NetlinkError ENODEV if there is none."""
        return _index(self.host, name)

    def pod_index(self, name: str) -> int:
        """The ifindex of a link of the pod; NetlinkError ENODEV if there is none."""
        return _index(self.pod, name)

    def wish(self, path: str, value: str) -> None:
        """Set a switch without which the attachment works as well; one that stays is told."""
        try:
            sysctl.write(path, value)
        except OSError as error:
            if self._note is not None:
                self._note(f"goes on without: {error.strerror}")

    def drop(self, *removals: Message) -> bool:
        """Carry out removals on the host, in one send; False if one was gone already."""
        return _drop(self.host, removals)

    def drop_link(self, index: int, *removals: Message) -> None:
        """Delete the host's link ``index``, after these removals; what is gone is fine.

        Returns when the link is gone for everybody, without the kernel's wait after that.
        """
        if self._resident is not None:
            self._resident.delete_link(index, removals)
            return
        from cni_flannel.kernel import handover  # for DEL alone

        def work() -> None:
            # The child's own: two processes on one socket take each other's answers.
            with Handle() as own:
                _drop(own, [*removals, rtnl.del_link(index)])

        handover.run(work, index)

    def close(self) -> None:
        """Close both handles and the namespace."""
        self.host.close()
        if self._pod is not None:
            self._pod.close()
        if self.has_pod:
            os.close(self.netns_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, OSError):
            raise refused(error) from error


def _drop(handle: Handle, removals: Sequence[Message]) -> bool:
    try:
        handle.execute(*removals)
    except NetlinkError as error:
        for refusal in (error, *error.also):
            if refusal.errno not in GONE:
                raise refusal from None
        return False
    return True


def _lock(fd: int, path: str) -> None:
    try:
        if not netns.try_lock(fd):
            from ipam import lock  # only when another call is at work in the same pod

            lock.wait(fd, path, ALONE_TIMEOUT_S)
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> CNIError:
    """CNIError 101 for what the system would not do, in words that no runtime takes for success."""
    remedy = "see the kernel log (dmesg); if it stays, report it with the configuration"
    if error.errno in (errno.EPERM, errno.EACCES):
        remedy = "run the plugin as root: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN"
    return CNIError(
        errors.KERNEL_REFUSED,
        f"access the network of host and container: {errors.harmless(str(error))}",
        remedy,
    )


def _index(handle: Handle, name: str) -> int:
    link = handle.get_link(name)
    if link is None:
        raise NetlinkError(errno.ENODEV, name)
    return link.index


def random_mac() -> str:
    """A random unicast MAC, marked as locally administered (IEEE 802, 48-bit addresses)."""
    octets = os.urandom(6)
    return bytes([octets[0] & 0xFC | 0x02, *octets[1:]]).hex(":")


def port_mac(octets: bytes) -> str:
    """The MAC of a port, of six random octets: above those of uplinks.

    A bridge without a MAC of its own takes the lowest of its ports' (net/bridge/br_stp_if.c): an
    uplink's it keeps, whatever pods come and go.
    """
    return bytes([0xFE, *octets[1:]]).hex(":")


def mac_of_call(environ: Mapping[str, str]) -> str:
    """The MAC of the port that this call makes, and no other one."""
    return port_mac(callname.octets(environ))

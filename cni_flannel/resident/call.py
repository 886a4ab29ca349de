"""One connection from its acceptance to its end: who is it, what does it ask, what is the answer.

A call runs here as it would in a process of its own; what it writes to stderr is collected.  A
connection that is not answered is not lost: its launcher does the work itself.
Imports: _thread, os, struct, time, cni.native, netlink, the parts of this package, the plugins.
"""

from __future__ import annotations

import _thread
import os
import struct
import time

from cni import callname, skel
from cni.errors import TRY_AGAIN_LATER, CNIError
from cni.native import socket
from cni_flannel import plugin as flannel
from cni_flannel.bridge import plugin as bridge
from cni_flannel.resident import places, protocol
from cni_flannel.resident.orphans import Attachments
from cni_flannel.resident.protocol import Refused
from cni_flannel.resident.turn import Turn
from ipam import plugin as host_local
from netlink import netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.types import Plugin
    from cni_flannel.resident.deleter import Deleter
    from cni_flannel.resident.protocol import Request
    from netlink.nlmsg import Message

PROGRAMS: dict[str, Plugin] = {"flannel": flannel, "bridge": bridge, "host-local": host_local}

LIMIT_S = 120.0
"""A delegate is stopped after this.  All other waits have their own, shorter bounds."""

ROOM = 32
"""Descriptors that must be free when a call begins; it needs half of them."""

_UCRED = struct.Struct("=iII")  # pid, uid, gid


class Lent:
    """What this process lends to one call: see `cni.types.Resident`."""

    __slots__ = ("_deleter", "_socket", "_turn", "connection", "limit_s", "netns_file")

    def __init__(
        self, netns_fd: int, connection: socket.socket, deleter: Deleter, turn: Turn
    ) -> None:
        self.netns_file = f"/proc/self/fd/{netns_fd}" if netns_fd >= 0 else ""
        self.connection = connection.fileno()
        self.limit_s = LIMIT_S
        self._socket = connection
        self._deleter = deleter
        self._turn = turn

    def require_caller(self) -> None:
        """CNIError 11 if the launcher has given up."""
        if protocol.has_hung_up(self.connection):
            raise _given_up()

    def confirm_caller(self) -> None:
        """CNIError 11 unless the launcher says that it waits."""
        self.require_caller()
        if not self._turn.without(lambda: protocol.confirms(self._socket)):
            raise _given_up()

    def step_aside(self) -> None:
        """Let other calls go on: this one waits for something that may take long."""
        self._turn.give()

    def delete_link(self, index: int, removals: Sequence[Message]) -> None:
        """Delete together with what others delete at this moment."""
        self._turn.without(lambda: self._deleter.delete(index, removals))


class Service:
    """What all calls share; ``serve`` is called by many threads.

    ``log`` gets a line for each call that is served, before its launcher can know the answer.
    """

    __slots__ = ("_attachments", "_deleter", "_log", "_turns")

    def __init__(self, deleter: Deleter, log: Callable[[str], None] | None = None) -> None:
        self._deleter = deleter
        self._log = log
        self._attachments = Attachments()
        self._turns = _thread.allocate_lock()

    def serve(self, connection: socket.socket) -> None:
        """Serve one connection.  Refused if it gets no answer; OSError if it ends early."""
        pid = _require_root(connection)
        _require_room(connection.fileno())
        name = callname.new()
        protocol.greet(connection, name)
        with protocol.read_request(connection) as request:
            _require_same_network(request)
            places.require_same(pid, request.environ.get("CNI_PATH", ""), request.stdin)
            if request.program not in PROGRAMS:
                raise Refused(f"no program {request.program!r}")
            request.environ[callname.VARIABLE] = name
            with self._attachments.call(request.environ, connection.fileno()):
                answer = self._run(request, connection)
        protocol.reply(connection, *answer)

    def _run(self, request: Request, connection: socket.socket) -> tuple[int, bytes, bytes]:
        with Turn(self._turns) as turn:
            start = time.monotonic()
            answer = run(request, Lent(request.netns, connection, self._deleter, turn))
        if self._log is not None:
            self._log(_line(request, answer[0], time.monotonic() - start))
        return answer


def run(request: Request, lent: Lent) -> tuple[int, bytes, bytes]:
    """Run the verb; exit status, stdout, stderr.  Whatever it raises becomes a CNI error."""
    notes: list[str] = []
    try:
        lent.require_caller()  # it may have waited long for one of us, and do the work itself now
        status, stdout = skel.call(
            PROGRAMS[request.program], request.environ, request.stdin, notes.append, lent
        )
    except Exception as error:  # noqa: BLE001 - the last door of a call, as in skel.run
        status, stdout = 1, skel.failure(error, request.environ, notes.append)
    stderr = "".join(f"{note}\n" for note in notes).encode("utf-8", "backslashreplace")
    return status, stdout, stderr


def _given_up() -> CNIError:
    return CNIError(
        TRY_AGAIN_LATER,
        "interrupted: the caller does not wait any more",
        "what was begun has been rolled back; the runtime may have run out of patience",
    )


def _line(request: Request, status: int, seconds: float) -> str:
    """A served call for whoever reads the log; what the caller chose cannot break the line."""
    asked = (request.environ.get(f"CNI_{key}", "") for key in ("COMMAND", "CONTAINERID", "IFNAME"))
    words = " ".join(ascii(one) for one in asked)
    return f"served {request.program} {words}: exit status {status}, {seconds * 1000:.1f} ms"


def _require_root(connection: socket.socket) -> int:
    """Refuse who is not; the caller's process, 0 if it is in another PID namespace."""
    pid: int
    pid, uid, _ = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    if uid != 0:
        raise Refused(f"process {pid} has the user id {uid}, not root's")
    return pid


def _require_room(newest: int) -> None:
    """Refuse what could fail for want of descriptors: a process of its own has enough of them."""
    limit = os.sysconf("SC_OPEN_MAX")  # RLIMIT_NOFILE as it is now
    if newest + ROOM > limit:  # the kernel gives the lowest number that is free
        raise Refused(f"descriptor {newest} of at most {limit}: too few are left for a call")


def _require_same_network(request: Request) -> None:
    """Refuse who is in another network than we are: it asks for changes in its own."""
    if not netns.is_own(request.caller_netns):
        raise Refused("the caller is in another network namespace than this process")

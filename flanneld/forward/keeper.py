"""Keeps the forwarder: its device, its socket, and the process that moves the packets.

The daemon holds the device and the socket, so that a forwarder that crashes takes neither
addresses nor routes with it, and packets wait in the queues for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld.forward.datagram import SocketError, bound
from flanneld.forward.tun import Tun, TunError
from flanneld.program import SELF

if TYPE_CHECKING:
    import socket
    from asyncio.subprocess import Process
    from collections.abc import Callable, Mapping

    from flanneld.forward.forwarding import Forwarding

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0  # for a forwarder to take its table, or to end
_SHORT_LIFE_S = 1.0  # one that ends sooner is not started again at once
_AGAIN_S = 1.0  # after which what could not be done is tried again
BROKEN = 1  # exit status of a forwarder that cannot use its device or socket


class Keeper:
    """One forwarder, or none.

    ``changed`` is called when it has ended: call ``apply`` again.  ``dropped`` is told how many
    packets it has dropped since the last time, by reason.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        dropped: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        self._changed = changed
        self._dropped = dropped
        self._now: Forwarding | None = None
        self._tun: Tun | None = None
        self._socket: socket.socket | None = None
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._broken = False

    @property
    def process_id(self) -> int | None:
        """The running forwarder's, if one runs."""
        return None if self._process is None else self._process.pid

    async def apply(self, wanted: Forwarding | None) -> tuple[str, ...]:
        """Make the device, the socket and the process as wanted; gives what stands in the way."""
        if wanted is None:
            await self.close()
            return ()
        try:
            return await self._apply(wanted)
        except (TunError, SocketError) as error:
            problem = str(error)
        except OSError as error:
            problem = f"start the forwarder of {wanted.device}: {error.strerror or error}"
        # An earlier daemon's forwarder may be about to end, with what it holds.
        asyncio.get_running_loop().call_later(_AGAIN_S, self._changed)
        return (problem,)

    async def close(self) -> None:
        """End the process, and let go of the socket and the device."""
        await self._end()
        if self._socket is not None:
            self._socket.close()
        if self._tun is not None:
            self._tun.close()
        self._socket = self._tun = self._now = None
        self._broken = False

    async def _apply(self, wanted: Forwarding) -> tuple[str, ...]:
        before = self._now
        if self._broken or (before and replace(before, nodes=wanted.nodes) != wanted):
            await self.close()
            before = None
        if self._tun is None or not self._is_up(self._tun, wanted.mtu):
            await self.close()
            before = None
            self._tun = Tun(wanted.device)
            self._tun.set_up(wanted.mtu)
        if self._socket is None:
            self._socket = bound(wanted.local, wanted.port)
        if self._process is None:
            await self._start(wanted, self._tun, self._socket)
            before = None
        if before != wanted:
            await self._tell(wanted)
        self._now = wanted
        return ()

    @staticmethod
    def _is_up(tun: Tun, mtu: int) -> bool:
        """Whether the device is there, after it was set up again if need be."""
        try:
            if tun.set_up(mtu):
                _log.info("drift repaired", extra={"device": tun.name})
        except OSError as error:
            _log.warning("%s is made again: %s", tun.name, error.strerror)
            return False
        return True

    async def _start(self, wanted: Forwarding, tun: Tun, sock: socket.socket) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *SELF,
            "forward",
            f"--tun={tun.fd}",
            f"--socket={sock.fileno()}",
            f"--mtu={wanted.mtu}",
            f"--port={wanted.port}",
            f"--network={wanted.network}",
            f"--subnet={wanted.subnet}",
            *(["--strict"] if wanted.strict else []),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(tun.fd, sock.fileno()),
        )
        self._watcher = asyncio.create_task(self._watch(self._process), name="forwarder")
        _log.info("forwarding", extra={"device": tun.name, "pid": self._process.pid})

    async def _watch(self, process: Process) -> None:
        """Hear of dropped packets until the process's end, which nobody has asked for."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if process.stdout is not None:
            async for line in process.stdout:
                self._dropped(json.loads(line))
        status = await process.wait()
        self._process = self._watcher = None
        self._broken = status == BROKEN
        _log.warning("the forwarder has ended; another is started", extra={"status": status})
        lived = loop.time() - started
        loop.call_later(0 if lived > _SHORT_LIFE_S else _SHORT_LIFE_S, self._changed)

    async def _tell(self, wanted: Forwarding) -> None:
        """Send the whole table; a forwarder that does not take it is replaced."""
        process = self._process
        if process is None or process.stdin is None:
            return
        table = {str(subnet): str(node) for subnet, node in wanted.nodes.items()}
        try:
            process.stdin.write(json.dumps(table).encode() + b"\n")
            await asyncio.wait_for(process.stdin.drain(), _PATIENCE_S)
        except (OSError, TimeoutError) as error:
            _log.warning("the forwarder does not listen: %r", error)
            process.kill()

    async def _end(self) -> None:
        process, watcher = self._process, self._watcher
        self._process = self._watcher = None
        if watcher is not None:
            watcher.cancel()
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # it ends at the end of its input
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()

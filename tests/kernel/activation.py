"""In systemd's place on a node: the socket of resident mode, its service, and `systemctl` for both.

The socket is held here, and the first connection starts the service, as systemd does it; another
one starts the next service when that has ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.kernel.resident import SOCKET

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.kernel.conftest import Node

SYSTEMCTL = """#!/bin/sh
echo "$@" >/run/asked
read -r status </run/answered
exit "$status"
"""
# The descriptor of the socket is the third, as systemd's protocol says.
SERVICE = 'exec 3<&$0; LISTEN_PID=$$ LISTEN_FDS=1 exec "$1" serve --log-calls 2>>/run/served'


class Systemd:
    """systemd on a node; a context manager."""

    def __init__(self, node: Node, program: str) -> None:
        self._node = node
        self._program = program
        self._listener: socket.socket | None = None
        self._service: subprocess.Popen[bytes] | None = None
        for folder in ("/run/systemd/system", "/run/cni-flannel"):
            node.path(folder).mkdir(parents=True)
        node.run(["mount", "-t", "tmpfs", "none", "/etc/systemd/system"])
        node.path(node.write("/run/bin/systemctl", SYSTEMCTL)).chmod(0o755)
        node.run(["mkfifo", "/run/asked", "/run/answered"])
        # Open for both, so that none who asks finds an end, and no answer waits for who has gone.
        self._asked = os.open(node.path("/run/asked"), os.O_RDWR)
        self._answered = os.open(node.path("/run/answered"), os.O_RDWR)
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end)
        self._thread.join()
        self._close()
        for fd in (self._asked, self._answered, self._ended):
            os.close(fd)

    def served(self) -> int:
        """Count the calls that services have served so far."""
        path: Path = self._node.path("/run/served")
        return path.read_text().count("served") if path.exists() else 0

    def _run(self) -> None:
        while True:
            waits = [self._asked, self._ended]
            if self._listener is not None and not self._is_active():
                waits.append(self._listener.fileno())
            ready, _, _ = select.select(waits, [], [], 0.05)
            if self._ended in ready:
                return
            if self._asked in ready:
                for line in os.read(self._asked, 4096).decode().splitlines():
                    self._obey(line)
                    os.write(self._answered, b"0\n")
            elif self._listener is not None and self._listener.fileno() in ready:
                self._activate(self._listener)

    def _obey(self, words: str) -> None:
        match words.split():
            case ["stop", "cni-flannel.service"] | ["disable", "--now", "cni-flannel.service"]:
                self._stop()
            case ["restart", "cni-flannel.socket"]:
                self._close()
                self._listener = socket.socket(socket.AF_UNIX)
                self._listener.bind(str(self._node.path(SOCKET)))
                self._listener.listen(1024)
            case ["disable", "--now", "cni-flannel.socket"]:
                self._close()
            case _:
                pass

    def _is_active(self) -> bool:
        return self._service is not None and self._service.poll() is None

    def _activate(self, listener: socket.socket) -> None:
        fd = listener.fileno()
        argv = ["bash", "-c", SERVICE, str(fd), self._program]
        self._service = self._node.popen(argv, pass_fds=[fd])

    def _stop(self) -> None:
        if self._service is not None and self._is_active():
            self._service.send_signal(signal.SIGTERM)
            self._service.wait()

    def _close(self) -> None:
        """As the end of the socket unit: the service ends with it, if it still runs."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with contextlib.suppress(FileNotFoundError):
                self._node.path(SOCKET).unlink()
        self._stop()

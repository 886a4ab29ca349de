"""A node with a launcher, a resident process, or somebody in its place who behaves badly.

The launcher is the one of the built folder; a copy of it that lies alone can only succeed when the
resident process has served it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.kernel.attaching import eventually
from tests.kernel.attachments import CONF

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from tests.kernel.conftest import Node, Outcome

THREADS, EPOLL = 64, "anon_inode:[eventpoll]"
SOCKET = "/run/cni-flannel/cni.sock"
HEADER, REPLY = struct.Struct("=4sII"), struct.Struct("=III")
STILL_THERE = 256
GREETING = struct.pack("=4sI56s", b"CNIr", 1, b"0123456789ab-1")


class Resident:
    """Launchers for a node, and the resident process once `start` was called."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.launcher = str(folder / "flannel")
        self.server: subprocess.Popen[bytes] | None = None

    def lonely(self, name: str = "flannel") -> str:
        """A launcher that has no frozen executable to become."""
        path = f"/run/lonely/bin/{name}"
        if not self.node.path(path).exists():
            program = "host-local" if name == "host-local" else "flannel"
            content = (self.folder / program).read_bytes()
            self.node.path(self.node.write(path, content)).chmod(0o755)
        return path

    def start(
        self, *arguments: str, wrapped: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start `flannel serve`, by a program that becomes it, and wait until it does."""
        argv = [*wrapped, str(self.folder / "flannel"), "serve", *arguments]
        self.server = self.node.popen(argv, **options)
        path = arguments[1] if arguments else SOCKET
        eventually(lambda: answers(self.node.path(path)), "the server answers")
        eventually(lambda: not self.busy(), "it is through with our question")
        eventually(lambda: self.descriptors().count(EPOLL) == THREADS, "all threads wait")
        return self.server

    def call(self, command: str, pod: str = "a", conf: Any = CONF, **options: Any) -> Outcome:
        """Call through a launcher that only a resident process can serve."""
        options = {"netns": f"/run/netns/{pod}", "plugin": self.lonely(), **options}
        return self.node.cni(command, conf, container_id=f"cid-{pod}", **options)

    def pid(self) -> int:
        """The server's process number: nsenter(1) has become it."""
        assert self.server is not None
        return self.server.pid

    def threads(self) -> dict[str, str]:
        """The server's threads, and the network namespace of each."""
        tasks = Path(f"/proc/{self.pid()}/task")
        return {task.name: os.readlink(task / "ns" / "net") for task in tasks.iterdir()}

    def busy(self) -> bool:
        """Whether the server has a connection, beside the sockets that it listens with."""
        return len([one for one in self.descriptors() if one.startswith("socket:")]) > 2

    def descriptors(self) -> list[str]:
        """What the server has open, standard streams left out."""
        folder, found = Path(f"/proc/{self.pid()}/fd"), []
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append((int(name), os.readlink(folder / name)))
        return [target for number, target in sorted(found) if number > 2]


def answers(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            return probe.recv(len(GREETING)) != b""
        except OSError:
            return False


class Impostor:
    """A server of the tests at a node's socket: `behave` gets each connection."""

    def __init__(
        self, node: Node, behave: Callable[[socket.socket], None], path: str = SOCKET
    ) -> None:
        where = node.path(path)
        where.parent.mkdir(mode=0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(where))
        self._listener.listen()
        self._behave = behave
        self.served = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.served += 1
                self._behave(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    data = b""
    while len(data) < size and (chunk := connection.recv(size - len(data))):
        data += chunk
    return data


def swallowing(path: Path) -> Callable[[socket.socket], None]:
    """Hands a call on to the real server, and keeps the reply for itself."""

    def behave(connection: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 8)
        length = HEADER.size + HEADER.unpack_from(data)[2]
        with socket.socket(socket.AF_UNIX) as real:
            real.connect(str(path))
            data += receive(connection, length - len(data))
            socket.send_fds(real, [data], fds)
            for fd in fds:
                os.close(fd)
            connection.sendall(receive(real, len(GREETING)))
            while (header := REPLY.unpack(receive(real, REPLY.size)))[0] == STILL_THERE:
                real.sendall(b"y")
            _, stdout, stderr = header
            receive(real, stdout + stderr)

    return behave

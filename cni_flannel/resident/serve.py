"""``flannel serve``: the command, from its arguments to the end of the process.

The main thread gets the signals, and serves nothing.  SIGTERM and SIGINT end the process when what
runs is finished; whoever is not served then falls back.  SIGHUP changes nothing: everything is read
from the files at each call.
Imports: gc, os, resource, select, time, cni.native, the parts of this package.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import time

from cni.native import signal
from cni_flannel.resident import activation, call
from cni_flannel.resident import loaded as _loaded  # noqa: F401 - for what it imports
from cni_flannel.resident.address import Address
from cni_flannel.resident.deleter import Deleter
from cni_flannel.resident.server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from cni.native import socket

SOCKET = "/run/cni-flannel/cni.sock"
THREADS = 64
"""Calls at once.  Most of them wait: for the kernel, a lock, a delegate."""

DESCRIPTORS = 8192
"""Room for them: a call has up to 16 open, and a usual limit is 1,024."""

IDLE_S = 600.0
"""A process that the service manager starts when it is called ends after so long without a call."""

RETRY_S = 30.0
"""Threads that could not be had are asked for again after this."""

USAGE = """\
usage: flannel serve [--socket PATH] [--log-calls]

  --socket PATH  listen there instead of at /run/cni-flannel/cni.sock
  --log-calls    a line on stderr for each call that is served"""
_ENDING = (signal.SIGTERM, signal.SIGINT)
_USELESS, _FAILED = 2, 1


def main(argv: list[str]) -> NoReturn:
    """Serve until a signal ends it, or nobody calls; then leave the process."""
    try:
        options = _options(argv)
        if options is None:
            _tell(USAGE)
            os._exit(_USELESS)
        _serve(*options)
    except (OSError, ValueError, RuntimeError) as error:
        _tell(f"flannel serve: {error}")
        os._exit(_FAILED)
    os._exit(0)


def _options(argv: list[str]) -> tuple[str, bool] | None:
    """The path of the socket, and whether calls are logged; None if that cannot be understood."""
    path, logs_calls = SOCKET, False
    words = iter(argv)
    for word in words:
        if word == "--log-calls":
            logs_calls = True
        elif word == "--socket":
            path = next(words, "")
        else:
            return None
    return (path, logs_calls) if path else None


def _serve(path: str, logs_calls: bool) -> None:  # noqa: FBT001 - as they come from the options
    _raise_descriptor_limit()
    signals = _signals()
    gc.enable()  # the frozen plugins turn it off
    gc.freeze()  # what is loaded now stays
    passed = activation.passed_socket(os.environ, os.getpid())
    address = Address(path) if passed is None else None
    listener = passed if address is None else address.listener
    assert listener is not None  # noqa: S101 - one of the two was made
    server = _started(listener, _tell if logs_calls else None)
    activation.notify(os.environ, "READY=1")
    _tell(f"serving {'the socket that was passed' if passed else path}")
    _attend(server, signals, None if passed is None else IDLE_S)
    activation.notify(os.environ, "STOPPING=1")
    server.stop()
    if address is not None:
        address.close()
    _drain(server, signals)


def _started(listener: socket.socket, log: Callable[[str], None] | None) -> Server:
    deleter = Deleter()
    deleter.start()
    server = Server(listener, call.Service(deleter, log).serve, _tell)
    server.keep(THREADS)
    return server


def _raise_descriptor_limit() -> None:
    """Make room for what all threads have open at once; as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _signals() -> int:
    """Turn signals into bytes of a pipe; its descriptor."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    for number in (*_ENDING, signal.SIGHUP):
        # a handler, since what is ignored would be ignored by delegates too
        signal.signal(number, lambda *_: None)
    return read


def _attend(server: Server, signals: int, idle_s: float | None) -> None:
    """Replace missing threads, until a signal ends the process or it was idle for so long."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    poll.register(server.fileno(), select.POLLIN)
    served, since = 0, time.monotonic()
    while True:
        limit_s = idle_s if server.threads == THREADS else RETRY_S
        ready = [fd for fd, _ in poll.poll(None if limit_s is None else limit_s * 1000)]
        if signals in ready and set(os.read(signals, 256)) & set(_ENDING):
            return
        if server.fileno() in ready:
            server.heed()
        server.keep(THREADS)
        if (server.served, server.busy) != (served, 0):
            served, since = server.served, time.monotonic()
        elif idle_s is not None and time.monotonic() - since >= idle_s:
            return


def _drain(server: Server, signals: int) -> None:
    """Wait until all threads have ended; a second signal ends the waiting."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    poll.register(server.fileno(), select.POLLIN)
    while server.threads:
        ready = [fd for fd, _ in poll.poll()]
        if server.fileno() in ready:
            server.heed()
        if signals in ready and set(os.read(signals, 256)) & set(_ENDING):
            _tell(f"flannel serve: left with {server.busy} calls unfinished")
            return


def _tell(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # nobody reads it: no reason to stop serving

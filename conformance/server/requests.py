"""Clients of `server-hostile` whose request is none, or has something odd in it: one a row.

A refusal is the end of the connection without a reply. `code` is that of the error in a reply.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from conformance.server import client
from conformance.server.client import Request, said, usual, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.server.site import Site

_OWN = ("ADD", "DEL", "CHECK")


def nonsense(site: Site) -> list[str]:
    """Bytes of all kinds, and none."""
    found = []
    for data in (b"", b"\0" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"CNIr", os.urandom(1 << 16)):
        with client.connected(site) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # it has been refused before all was sent
            found += said(f"{len(data)} bytes", client.receive(connection))
    return found


def halves(site: Site) -> list[str]:
    """A request that ends somewhere, the connection closed or held."""
    found = []
    with client.files(site) as opened:
        request = whole(usual(site), [opened["host"], opened["stdin"], opened["pod"]])
        for size in (1, 11, 12, 13, len(request.data) // 2, len(request.data) - 1):
            part = Request(request.data[:size], request.descriptors)
            with client.connected(site) as closed:
                client.send(closed, part)
            with client.connected(site) as held:
                client.send(held, part)
                found += said(f"{size} bytes, held", client.receive(held))
    return found


def headers(site: Site) -> list[str]:
    """Another version, and lengths that are not true."""
    found = []
    with client.files(site) as opened:
        rights = [opened["host"], opened["stdin"], opened["pod"]]
        told = usual(site)
        odd = {
            "version 0": whole(told, rights, version=0),
            "version 2": whole(told, rights, version=2),
            "the largest length": whole(told, rights, length=0xFFFFFFFF),
            "more than there may be": whole(told, rights, length=(1 << 20) + 1),
            "less than was sent": whole(told, rights, length=len(told) - 1),
            "nothing": whole(b"", rights),
        }
        for what, request in odd.items():
            found += said(what, client.ask(site, request))
    return found


def counts(site: Site) -> list[str]:
    """Too few descriptors and too many; none of them may stay open."""
    found = []
    with client.files(site) as opened:
        for number in (0, 1, 4, 16, 17, 253):
            reply = client.ask(site, whole(usual(site), [opened["host"]] * number))
            found += said(f"{number} descriptors", reply)
    return found


def stdins(site: Site) -> list[str]:
    """Stdin that is no file in memory, too large, or changes while it is read."""
    found = []
    with client.files(site) as opened:
        for what in ("pipe", "zeros", "folder", "host", "huge", "path of stdin"):
            rights = [opened["host"], opened[what], opened["pod"]]
            code = 6 if what == "host" else None  # the kernel says that it is an empty file
            found += said(f"stdin is {what}", client.ask(site, whole(usual(site), rights)), code)
        changing = client.in_memory(b" " * (4 << 20))
        end = threading.Event()
        changer = threading.Thread(target=_change, args=(changing, end))
        changer.start()
        for _ in range(20):
            request = whole(usual(site), [opened["host"], changing, opened["pod"]])
            found += said("stdin changes", client.ask(site, request), 6)
        end.set()
        changer.join()
        os.close(changing)
    return found


def _change(fd: int, end: threading.Event) -> None:
    while not end.is_set():
        os.ftruncate(fd, 0)
        os.ftruncate(fd, 4 << 20)


def callers(site: Site) -> list[str]:
    """A namespace of the caller's that is another than the process' own, or none."""
    found = []
    with client.files(site) as opened:
        for what in ("elsewhere", "pod", "mounts", "file", "folder", "pipe", "stdin"):
            rights = [opened[what], opened["stdin"], opened["pod"]]
            found += said(f"the caller's is {what}", client.ask(site, whole(usual(site), rights)))
    return found


def namespaces(site: Site) -> list[str]:
    """CNI_NETNS leads to something that is no network namespace, or to the node's own."""
    found = []
    with client.files(site) as opened:
        for what in ("mounts", "file", "folder", "zeros", "pipe", "stdin", "host"):
            for command in _OWN:
                rights = [opened["host"], opened["stdin"], opened[what]]
                reply = client.ask(site, whole(usual(site, command), rights))
                name = f"{command}, CNI_NETNS is {what}"
                if command != "DEL":
                    found += [f"{name}: {reply}"] if reply is None or not reply.status else []
                else:  # gone, or nobody's: nothing to do; from the node's own it keeps its hands
                    found += said(name, reply, 8 if what == "host" else 0)
    return found


def programs(site: Site) -> list[str]:
    """Programs that there are not."""
    found = []
    with client.files(site) as opened:
        rights = [opened["host"], opened["stdin"], opened["pod"]]
        environ = usual(site).partition(b"\0")[2]
        for name in (b"", b"serve", b"../flannel", b"/bin/sh", b"FLANNEL", b"\xff", b"x" * 5000):
            request = whole(name + b"\0" + environ, rights)
            found += said(f"program {name[:20]!r}", client.ask(site, request))
    return found


def environments(site: Site) -> list[str]:
    """Variables that are none, missing, not text, or very many."""
    found = []
    with client.files(site) as opened:
        rights = [opened["host"], opened["stdin"], opened["pod"]]
        odd = {
            b"flannel\0": 4,
            b"flannel\0\0\0\0": 4,
            b"flannel\0=\0==\0CNI_COMMAND\0": 4,
            b"flannel\0CNI_COMMAND=\0": 4,
            client.strings("flannel", {"CNI_COMMAND": "SERVE"}): 4,
            usual(site, "add"): 4,
            usual(site, CNI_CONTAINERID="../../x"): 4,
            usual(site, CNI_IFNAME="a\nserved flannel 'ADD'"): 4,
            usual(site, "DEL") + b"\xff\xfe=\xff\0": 0,
            usual(site, "DEL") + b"X=1\0" * 200_000: 0,
        }
        for told, code in odd.items():
            found += said(f"{told[:40]!r}", client.ask(site, whole(told, rights)), code)
    return found


def repeaters(site: Site) -> list[str]:
    """Descriptors with every piece of a request, not only the first; two requests in one."""
    found = []
    with client.files(site) as opened:
        rights = [opened["host"], opened["stdin"], opened["pod"]]
        request = whole(usual(site, "DEL"), rights)
        with client.connected(site) as connection:
            half = len(request.data) // 2
            client.send(connection, Request(request.data[:half], rights))
            client.send(connection, Request(request.data[half:], rights))
            found += said("descriptors twice", client.receive(connection), 0)
        twice = Request(request.data * 2, rights)
        found += said("two requests", client.ask(site, twice))
    return found


CLIENTS: tuple[Callable[[Site], list[str]], ...] = (
    nonsense,
    halves,
    headers,
    counts,
    stdins,
    callers,
    namespaces,
    programs,
    environments,
    repeaters,
)

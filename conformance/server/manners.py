"""Clients of `server-hostile` whose request is like a launcher's, and who are not: one a row."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from conformance.resident import SOCKET
from conformance.server import client
from conformance.server.client import Request, said, usual, whole
from conformance.server.site import NOBODY
from conformance.stress.scene import POD

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.server.site import Site

CROWD = 1000
_INTERVAL_S = 0.25  # between two bytes of the slow one


def slow(site: Site) -> list[str]:
    """A byte now and then, for longer than a request may take."""
    with client.files(site) as opened, client.connected(site) as connection:
        request = whole(usual(site), [opened["host"], opened["stdin"], opened["pod"]])
        client.send(connection, Request(request.data[:1], request.descriptors))
        try:
            for byte in request.data[1:40]:
                connection.sendall(bytes([byte]))
                time.sleep(_INTERVAL_S)
        except BrokenPipeError:
            return []
        return ["it was listened to for as long as it wanted"]


def crowd(site: Site) -> list[str]:
    """Very many connections that say nothing; a launcher's call succeeds all the same."""
    connections: list[socket.socket] = []
    try:
        connections.extend(client.connected(site) for _ in range(CROWD))
        return site.judge_life()
    finally:
        for connection in connections:
            connection.close()


def strangers(site: Site) -> list[str]:
    """Somebody who is not root, for whom the folder was opened by mistake."""
    path = site.world.path(SOCKET)
    path.parent.chmod(0o755)
    path.chmod(0o666)
    home = os.open(".", os.O_PATH)
    try:
        with client.files(site) as opened:
            os.chdir(path.parent)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(client.PATIENCE_S)
            os.seteuid(NOBODY)
            try:
                connection.connect(path.name)
            finally:
                os.seteuid(0)
            with connection:
                try:
                    rights = [opened["host"], opened["stdin"], opened["pod"]]
                    client.send(connection, whole(usual(site), rights))
                except BrokenPipeError:
                    return []
                return said("not root", client.receive(connection))
    finally:
        os.fchdir(home)
        os.close(home)
        path.parent.chmod(0o700)
        path.chmod(0o600)


def leavers(site: Site) -> list[str]:
    """They ask, and are gone before the answer; their attachment goes too."""
    with client.files(site) as opened:
        request = whole(usual(site), [opened["host"], opened["stdin"], opened["pod"]])
        for position in range(40):
            with client.connected(site) as connection:
                client.send(connection, request)
                if position % 2:
                    connection.shutdown(socket.SHUT_WR)
                    client.receive(connection)
                time.sleep(position / 10_000)
            if position % 4 > 1:
                site.call("DEL")
    return site.judge_del(site.call("DEL"))


def mutes(site: Site) -> list[str]:
    """They ask, stay, and do not take the answer."""
    with client.files(site) as opened:
        told = usual(site, "DEL", CNI_CONTAINERID="cid-mute", CNI_NETNS="")
        request = whole(told, [opened["host"], opened["stdin"]])
        connections = [client.connected(site) for _ in range(100)]
        for connection in connections:
            client.send(connection, request)
        found = site.judge_life()
        for connection in connections:
            connection.close()
    return found


def silent(site: Site) -> list[str]:
    """They ask, stay, and do not say that they still wait: their ADD is taken back."""
    with client.files(site) as opened, client.connected(site) as connection:
        request = whole(usual(site), [opened["host"], opened["stdin"], opened["pod"]])
        client.send(connection, request)
        found = said("does not say that it waits", client.receive(connection, answers=False), 11)
    return [*found, *site.left()]


def netns_of_nobody(site: Site) -> list[str]:
    """A namespace whose name is gone when the call comes, and lives by the descriptor alone."""
    name = f"{POD}-gone"
    site.world.add_pod(name)
    with client.files(site) as opened:
        fd = os.open(site.world.path(f"/run/netns/{name}"), os.O_PATH)
        site.world.del_pod(name)
        environ = {"CNI_NETNS": f"/run/netns/{name}"}
        rights = [opened["host"], opened["stdin"], fd]
        found = said("ADD", client.ask(site, whole(usual(site, **environ), rights)), 0)
        found += said("DEL", client.ask(site, whole(usual(site, "DEL", **environ), rights)), 0)
        os.close(fd)
    return found


CLIENTS: tuple[Callable[[Site], list[str]], ...] = (
    slow,
    strangers,
    leavers,
    mutes,
    silent,
    netns_of_nobody,
    crowd,
)

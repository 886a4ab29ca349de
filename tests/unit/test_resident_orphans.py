"""A DEL waits for an ADD that nobody waits for any more, and for no other."""

from __future__ import annotations

import socket
import threading

import pytest

from cni_flannel.resident.orphans import Attachments

ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "cid", "CNI_IFNAME": "eth0"}
DEL = ADD | {"CNI_COMMAND": "DEL"}
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _who_waits_in_vain_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cni_flannel.resident.orphans.PATIENCE_S", 10 * PATIENCE_S)


class Served:
    """An ADD that is being served, until `end`; its launcher's end of the connection."""

    def __init__(self, attachments: Attachments, environ: dict[str, str]) -> None:
        self.launcher, self.connection = socket.socketpair()
        self.call = attachments.call(environ, self.connection.fileno())
        self.call.__enter__()

    def end(self) -> None:
        self.call.__exit__()
        self.launcher.close()
        self.connection.close()


def passed(attachments: Attachments, environ: dict[str, str]) -> threading.Event:
    """Begin a call in a thread of its own; the event is set when it has been let in."""
    event = threading.Event()

    def begin() -> None:
        with attachments.call(environ, -1):
            event.set()

    threading.Thread(target=begin, daemon=True).start()
    return event


@pytest.mark.parametrize("how", ["close", "half-close"])
def test_del_waits_for_an_add_whose_launcher_is_gone(how: str) -> None:
    attachments = Attachments()
    add = Served(attachments, ADD)
    if how == "close":
        add.launcher.close()
    else:
        add.launcher.shutdown(socket.SHUT_WR)
    waiting = [passed(attachments, DEL) for _ in range(3)]
    assert passed(attachments, ADD).wait(PATIENCE_S)  # the lock on the namespace is for these
    assert not any(event.is_set() for event in waiting)
    add.end()
    assert all(event.wait(PATIENCE_S) for event in waiting)


@pytest.mark.parametrize(
    "environ", [DEL | {"CNI_CONTAINERID": "other"}, DEL | {"CNI_IFNAME": "net1"}]
)
def test_del_of_another_attachment_does_not_wait(environ: dict[str, str]) -> None:
    attachments = Attachments()
    add = Served(attachments, ADD)
    add.launcher.close()
    assert passed(attachments, environ).wait(PATIENCE_S)
    add.end()


def test_del_does_not_wait_for_an_add_that_somebody_waits_for() -> None:
    attachments = Attachments()
    add = Served(attachments, ADD)
    assert passed(attachments, DEL).wait(PATIENCE_S)
    add.end()
    assert attachments.orphans(("cid", "eth0")) == []


def test_a_del_goes_on_when_its_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cni_flannel.resident.orphans.PATIENCE_S", 0.01)
    attachments = Attachments()
    add = Served(attachments, ADD)
    add.launcher.close()
    assert passed(attachments, DEL).wait(PATIENCE_S)
    add.end()

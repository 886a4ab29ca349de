"""Whatever is wrong with the resident process, a launcher's call is served all the same.

Each case is a whole ADD and DEL by the frozen plugin that the launcher becomes, after the resident
process was missing, refused, fell silent, or died with the work half done or done.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import CONF, call, conf_with, leases, remains, states
from tests.kernel.privatens import needs_root
from tests.kernel.resident import (
    GREETING,
    REPLY,
    SOCKET,
    STILL_THERE,
    Impostor,
    receive,
    swallowing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

HOST_LOCAL = {
    "cniVersion": "1.0.0",
    "name": "net",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.1.0/24"}]]},
}


def served(resident: Resident, pod: str = "a") -> None:
    """ADD and DEL through the launcher both do what they should."""
    node = resident.node
    result = call(node, "ADD", pod, plugin=resident.launcher).result
    address = result["ips"][0]["address"].partition("/")[0]
    assert list(leases(node)) == [address]
    assert [name for name in node.links() if name.startswith("veth")] != []
    assert call(node, "DEL", pod, plugin=resident.launcher).status == 0
    assert remains(node) == {}


def test_without_a_resident_process(resident: Resident) -> None:
    served(resident)


def test_nobody_listens(resident: Resident) -> None:
    resident.node.path("/run/cni-flannel").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(resident.node.path(SOCKET)))
    served(resident)


def ends_at_once(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def says(*words: bytes) -> Callable[[socket.socket], None]:
    """Read the request, then say this, and end."""

    def behave(connection: socket.socket) -> None:
        _, fds, _, _ = socket.recv_fds(connection, 1 << 20, 8)
        for fd in fds:
            os.close(fd)
        for word in words:
            with contextlib.suppress(BrokenPipeError):  # a launcher that has heard enough is gone
                connection.sendall(word)

    return behave


def falls_silent(connection: socket.socket) -> None:
    """Say nothing until the launcher has ended."""
    receive(connection, 1 << 24)


@pytest.mark.parametrize(
    "behave",
    [
        ends_at_once,
        says(),
        says(b"HTTP/1.1 400 Bad Request\r\n\r\n".ljust(64)),
        says(struct.pack("=4sI56s", b"CNIr", 2, b""), REPLY.pack(0, 2, 0), b"{}"),
        says(GREETING[:10]),
        says(GREETING),
        says(GREETING, REPLY.pack(STILL_THERE, 0, 0)),
        says(GREETING, REPLY.pack(0, 2, 0)[:5]),
        says(GREETING, REPLY.pack(0, 20, 0), b'{"ips":'),
        says(GREETING, REPLY.pack(0, (1 << 32) - 1, (1 << 32) - 1)),
        falls_silent,
    ],
    ids=[
        "ends at once",
        "no greeting",
        "garbage",
        "another version",
        "half a greeting",
        "no reply",
        "a question, no reply",
        "half a header",
        "half a reply",
        "a reply that does not fit",
        "silence",
    ],
)
def test_a_server_that_does_not_answer(
    resident: Resident, behave: Callable[[socket.socket], None]
) -> None:
    with Impostor(resident.node, behave) as impostor:
        served(resident)
        assert impostor.served == 2


def test_a_queue_that_is_full(resident: Resident) -> None:
    """connect(2) would wait: nobody accepts, and there is room for one connection only."""
    resident.node.path("/run/cni-flannel").mkdir()
    path = str(resident.node.path(SOCKET))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(path)
        listener.listen(0)
        waiting.connect(path)
        served(resident)


def test_a_server_that_is_not_roots(resident: Resident) -> None:
    """Its answer would be a lie, and is not read."""
    program = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.bind(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "s.listen()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    c, _ = s.accept()\n"
        f"    c.sendall({GREETING + REPLY.pack(0, 2, 0) + b'{}'!r})\n"
    )
    resident.node.path("/run/cni-flannel").mkdir()
    argv = [sys.executable, "-Ic", program, SOCKET]
    liar = resident.node.popen(argv, stdout=subprocess.PIPE)
    assert liar.stdout is not None
    with liar.stdout as said:
        assert said.readline() == b"ready\n"
        served(resident)


def test_a_caller_in_another_network(resident: Resident) -> None:
    """Its bridge belongs where it runs, not where the resident process does."""
    node = resident.node
    node.add_pod("other")
    resident.start()
    environ = node.environment("ADD", "c1", "eth0", "/run/netns/a")
    argv = ["ip", "netns", "exec", "other", resident.launcher]
    node.run(argv, json.dumps(CONF), environ)
    assert "cni0" in node.links("other")
    assert "cni0" not in node.links()


# ------------------------------------------------------------------------------------- lost answers


def test_an_add_that_was_done_and_not_answered_is_done_anew(resident: Resident) -> None:
    node = resident.node
    resident.start("--socket", "/run/real/cni.sock")
    with Impostor(node, swallowing(node.path("/run/real/cni.sock"))):
        done = call(node, "ADD", "a", plugin=resident.launcher)
        address = done.result["ips"][0]["address"].partition("/")[0]
        assert "rolled back" in done.stderr
        assert leases(node) == {address: "cid-a\r\neth0"}
        veths = [link for name, link in node.links().items() if name.startswith("veth")]
        assert [link["address"] for link in veths] == [done.result["interfaces"][1]["mac"]]
        assert list(states(node)) == ["cid-a"]
        for _ in range(2):
            assert call(node, "DEL", "a", plugin=resident.launcher).status == 0
        assert remains(node) == {}


def test_an_attachment_of_an_earlier_call_is_not_taken_for_a_lost_one(resident: Resident) -> None:
    node = resident.node
    first = call(node, "ADD", "a", plugin=resident.launcher).result
    before = node.links("a")
    resident.start("--socket", "/run/real/cni.sock")
    with Impostor(node, swallowing(node.path("/run/real/cni.sock"))):
        assert call(node, "ADD", "a", plugin=resident.launcher).error["code"] == 4
    assert node.links("a")["eth0"]["address"] == before["eth0"]["address"]
    assert list(leases(node)) == [first["ips"][0]["address"].partition("/")[0]]
    assert list(states(node)) == ["cid-a"]


def test_a_lease_that_was_made_and_not_answered_is_made_anew(resident: Resident) -> None:
    node = resident.node
    resident.start("--socket", "/run/real/cni.sock")
    launcher = str(resident.folder / "host-local")
    lease = functools.partial(call, node, conf=HOST_LOCAL, plugin=launcher)
    with Impostor(node, swallowing(node.path("/run/real/cni.sock"))):
        done = lease("ADD")
        address = done.result["ips"][0]["address"].partition("/")[0]
        assert leases(node, "net") == {address: "cid-a\r\neth0"}
        assert lease("ADD").error["code"] == 103, "that one is of the call before"
        assert leases(node, "net") == {address: "cid-a\r\neth0"}


# ------------------------------------------------------------------------------ the launcher itself


def test_a_call_larger_than_the_limit(resident: Resident) -> None:
    node = resident.node
    resident.start()
    conf = json.dumps(CONF).encode() + b" " * (5 << 20)
    done = node.cni("ADD", conf, container_id="c1", netns="/run/netns/a", plugin=resident.launcher)
    assert done.result["ips"]
    assert resident.call("ADD", conf=conf).error["code"] == 5, "not by the resident process"


@pytest.mark.parametrize("name", ["flannel", "host-local"])
def test_with_neither_server_nor_plugin_the_error_is_one_that_is_tried_again(
    resident: Resident, name: str
) -> None:
    for command in ("ADD", "DEL"):
        done = resident.call(command, plugin=resident.lonely(name))
        assert done.error["code"] == 5
        assert f"start the frozen {name}: /run/lonely/bin/.cni-flannel/current" in done.error["msg"]
        assert "no such file" not in done.stdout.lower()
        assert "not found" not in done.stdout.lower()


def test_version_does_not_wait_for_the_end_of_stdin(resident: Resident) -> None:
    environ = {"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]}
    read, write = os.pipe()
    with resident.node.popen(
        [resident.launcher], stdin=read, stdout=subprocess.PIPE, env=environ
    ) as asked:
        out, _ = asked.communicate(timeout=60)
    os.close(read)
    os.close(write)
    assert b"supportedVersions" in out


def test_a_person_gets_an_introduction(resident: Resident) -> None:
    done = resident.node.run([resident.launcher], env={})
    assert "CNI plugin flannel" in done.stderr


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_closed_standard_stream(resident: Resident, descriptor: int) -> None:
    """No descriptor of the launcher's takes its place: nothing is written where it should not."""
    node = resident.node
    resident.start()
    environ = node.environment("ADD", "c1", "eth0", "/run/netns/a")
    script = f"exec {descriptor}<&-; exec {resident.launcher}"
    done = node.run(["sh", "-c", script], json.dumps(CONF), environ, check=False)
    if descriptor == 0:
        assert done.error["code"] == 6
    else:
        assert done.status == 0
        assert (done.stdout == "") == (descriptor == 1)
        assert len(leases(node)) == 1


def test_a_signal_while_stdin_is_read_ends_it(resident: Resident) -> None:
    resident.start()
    environ = resident.node.environment("ADD", "c1", "eth0", "/run/netns/a")
    with resident.node.popen(
        [resident.launcher], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as waiting:
        eventually(
            lambda: os.readlink(f"/proc/{waiting.pid}/exe").endswith("/flannel"),
            "nsenter becomes the launcher",
        )
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(60) == -signal.SIGTERM
    assert remains(resident.node) == {}


def test_the_environment_may_be_too_large(resident: Resident) -> None:
    node = resident.node
    resident.start()
    long = {f"LONG_{n}": "x" * 100_000 for n in range(12)}
    done = call(node, "ADD", "a", plugin=resident.launcher, env=long)
    assert done.result["ips"]
    assert resident.call("DEL", env=long).error["code"] == 5
    assert resident.call("DEL").status == 0


def test_the_conf_decides_not_the_launcher(resident: Resident) -> None:
    """What is wrong with a call is told in the same words, by whomever it is served."""
    node = resident.node
    resident.start()
    for conf in (b"", b"{", conf_with(name="/"), conf_with(subnetFileWait=0, subnetFile="/run/x")):
        by_server = resident.call("ADD", conf=conf)
        by_itself = call(node, "ADD", "a", conf=conf)
        assert (by_server.status, by_server.stdout) == (by_itself.status, by_itself.stdout)


def test_what_it_becomes_knows_the_name_it_was_called_by(resident: Resident) -> None:
    node = resident.node
    node.path("/run/links").mkdir()
    node.path("/run/links/bridge").symlink_to(resident.launcher)
    conf = {**HOST_LOCAL, "type": "bridge"}
    result = call(node, "ADD", "a", conf=conf, plugin="/run/links/bridge").result
    assert [one["name"] for one in result["interfaces"]][::2] == ["cni0", "eth0"]
    assert leases(node, "net") == {"10.88.1.2": "cid-a\r\neth0"}
    assert states(node) == {}, "flannel would have one"

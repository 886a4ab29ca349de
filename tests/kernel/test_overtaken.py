"""Calls for one attachment that overtake each other: all of it is there in the end, or nothing.

A call is stopped as it enters a system call, and goes on when the other call has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import (
    CONF,
    add,
    call,
    conf_with,
    delete,
    forge_plugin,
    keep_carrier,
    leases,
    must_add,
    ping,
    remains,
    rules,
    states,
)
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.kernel.conftest import Node
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(300)]

TRACE = "/run/trace"
HURRIED = conf_with(ipam={"lockTimeout": 0.3})
SUBNET = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "lockTimeout": 0.3}
ALONE = {**CONF, "type": "bridge", "isDefaultGateway": True, "ipam": SUBNET}
SENDS = range(1, 17)
"""Netlink sends of an ADD, from the first look at the attachment's link to beyond the last."""

STOPS = [("linkat", 1), ("symlink", 1), *(("sendmsg", number) for number in SENDS)]


class Stopped:
    """A call for the container `cid-a` that stands still before its n-th system call of a kind."""

    def __init__(
        self, node: Node, name: str, number: int, conf: Any = HURRIED, command: str = "ADD"
    ) -> None:
        self._node = node
        inject = f"inject={name}:signal=STOP:when={number}"
        trace = ["strace", "-qq", "-o", TRACE, "-e", f"trace={name}", "-e", inject]
        environ = node.environment(command, "cid-a", "eth0", "/run/netns/a")
        stdin = os.memfd_create("stdin")
        os.write(stdin, json.dumps(conf).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        argv = [*trace, node.program(conf["type"])]
        pipes: dict[str, Any] = {"stdin": stdin, "stdout": -1, "stderr": -1}
        self.process: subprocess.Popen[bytes] = node.popen(argv, env=environ, **pipes)
        os.close(stdin)
        eventually(lambda: self._stands() or self.process.poll() is not None, "it stands still")

    def _lines(self) -> list[str]:
        path = self._node.path(TRACE)
        return path.read_text().splitlines() if path.exists() else []

    def _stands(self) -> bool:
        return any("stopped by SIGSTOP" in line for line in self._lines())

    def _goes_on(self) -> bool:
        """Wake it; whether it is awake: strace may have had no eye for the first signal."""
        tracer = self.process.pid
        for pid in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has gone on, and ended
                os.kill(int(pid), signal.SIGCONT)
        is_awake = any("SIGCONT" in line for line in self._lines())
        return is_awake or self.process.poll() is not None

    def go_on(self) -> tuple[int, str]:
        """Let it come to its end; its status and what it printed."""
        if self.process.poll() is None:
            eventually(self._goes_on, "it goes on")
        out, _ = self.process.communicate(timeout=120)
        return self.process.returncode, out.decode()


def whole(node: Node, pod: str = "a", plugin: str = "flannel") -> None:
    """The container has a link, an address and a lease that agree, in this pod."""
    (address,) = leases(node)
    assert node.addresses(pod)["eth0"] == [f"{address}/24"]
    assert leases(node)[address] == "cid-a\r\neth0"
    veths = [link for name, link in node.links().items() if name.startswith("veth")]
    assert [veth["ifalias"].removesuffix(" (rules)") for veth in veths] == [
        "flannel:cbr0:cid-a:eth0"
    ]
    assert list(states(node)) == (["cid-a"] if plugin == "flannel" else [])
    assert ping(node, pod, "10.244.1.1")


def nothing_left(node: Node) -> None:
    keep_carrier(node)
    assert remains(node) == {}


def is_overtaken(status: int, out: str) -> bool:
    """Whether an ADD failed with the code for that; else it must have succeeded."""
    if status == 0:
        return False
    error = json.loads(out)
    assert error["code"] == 11, error
    assert "meanwhile" in error["msg"] or "another" in error["details"].lower()
    return True


@pytest.mark.parametrize("conf", [HURRIED, ALONE], ids=lambda conf: conf["type"])
@pytest.mark.parametrize(("name", "number"), STOPS)
def test_a_del_overtakes_an_add(node: Node, name: str, number: int, conf: Any) -> None:
    """What DEL did not see is made after it; what it took away is not vouched for."""
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    running = Stopped(node, name, number, conf)
    had_lease = bool(leases(node))
    done = call(node, "DEL", conf=conf, plugin=conf["type"])
    if done.status != 0:
        assert "stopped) holds" in done.error["msg"], "the leases' lock"
        assert running.go_on()[0] == 0
        whole(node, plugin=conf["type"])
        delete(node, conf=conf, plugin=conf["type"])
        return
    assert leases(node) == {}
    status, out = running.go_on()
    if is_overtaken(status, out):
        assert leases(node) == {}
        assert states(node) == {}
        assert not [rule for rule in rules(node) if "cid-a" in rule]
    elif leases(node):
        assert not had_lease
        whole(node, plugin=conf["type"])
    else:
        assert set(node.links("a")) == {"lo"}, "ADD had come to its end before the DEL"
    delete(node, conf=conf, plugin=conf["type"])
    nothing_left(node)


@pytest.mark.parametrize("number", [5, 8, 11])
@pytest.mark.parametrize("conf", [HURRIED, ALONE], ids=lambda conf: conf["type"])
def test_an_overtaken_add_leaves_a_later_one_alone(node: Node, number: int, conf: Any) -> None:
    """Lease, link and state have the same names: it takes back what it has made itself."""
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    running = Stopped(node, "sendmsg", number, conf)
    assert leases(node)
    delete(node, conf=conf, plugin=conf["type"])
    must_add(node, "b", "cid-a", conf=conf, plugin=conf["type"])
    assert is_overtaken(*running.go_on())
    whole(node, "b", conf["type"])
    delete(node, "b", "cid-a", conf=conf, plugin=conf["type"])
    nothing_left(node)


@pytest.mark.parametrize("conf", [HURRIED, ALONE], ids=lambda conf: conf["type"])
@pytest.mark.parametrize(("name", "number"), [("sendmsg", 1), ("sendmsg", 2), ("flock", 1)])
def test_an_add_overtakes_a_del(node: Node, name: str, number: int, conf: Any) -> None:
    """The link comes when DEL has looked for one already, and the lease goes after that."""
    node.write_subnet_env(ipmasq="false")
    must_add(node, "b", conf=conf, plugin=conf["type"])
    node.add_pod("a")
    running = Stopped(node, name, number, conf, "DEL")
    must_add(node, conf=conf, plugin=conf["type"])
    assert running.go_on() == (0, "")
    assert list(leases(node).values()) == ["cid-b\r\neth0"]
    assert set(node.links("a")) == {"lo"}
    for pod in ("a", "b"):
        delete(node, pod, conf=conf, plugin=conf["type"])
    nothing_left(node)


def test_the_stops_reach_from_the_first_look_to_the_last_step(node: Node) -> None:
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    environ = node.environment("ADD", "cid-a", "eth0", "/run/netns/a")
    trace = ["strace", "-f", "-qq", "-o", TRACE, "-e", "trace=sendmsg"]
    node.run([*trace, node.program("flannel")], json.dumps(CONF), environ)
    sends = node.path(TRACE).read_text().count("sendmsg(")
    assert SENDS.start < sends <= SENDS.stop


@pytest.mark.parametrize(("name", "number"), STOPS)
def test_two_adds_of_one_container_into_two_namespaces(node: Node, name: str, number: int) -> None:
    """No runtime should; but the second one takes nothing from the first."""
    node.write_subnet_env()
    for pod in ("a", "b"):
        node.add_pod(pod)
    first = Stopped(node, name, number)
    second = add(node, "b", "cid-a", HURRIED)
    status, out = first.go_on()
    if second.status == 0:
        assert status != 0
        whole(node, "b")
    else:
        assert second.error["code"] in {4, 11, 103}
        assert status == 0, out
        whole(node, "a")
    for pod in ("a", "b"):
        delete(node, pod, "cid-a")
    nothing_left(node)


def test_a_del_overtakes_the_add_of_a_foreign_delegate(node: Node) -> None:
    node.write_subnet_env()
    forge_plugin(node, "slow", SLOW)
    conf = conf_with(delegate={"type": "slow"})
    node.add_pod("a")
    finished = in_background(node, conf)
    eventually(node.path("/run/begun").exists, "the delegate is at work")
    delete(node, conf=conf)
    node.write("/run/go", "")
    status, out = finished()
    assert is_overtaken(status, out)
    calls = node.path("/run/calls").read_text().split()
    assert calls == ["ADD", "DEL", "DEL"]
    assert states(node) == {}


SLOW = f"""
echo $CNI_COMMAND >>/run/calls
[ $CNI_COMMAND = ADD ] || exit 0
touch /run/begun
until [ -e /run/go ]; do sleep 0.02; done
echo '{json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.9/24"}]})}'"""


def test_a_del_of_another_container_leaves_a_pair_that_an_add_has_just_made(node: Node) -> None:
    """Between two messages of one send it has neither an alias nor a bridge; here it stays so."""
    node.write_subnet_env()
    must_add(node, "b")
    node.add_pod("a")
    pair = ["ip", "link", "add", "veth0a1b2c3d", "type", "veth", "peer", "name", "eth0"]
    node.run([*pair, "netns", "a"])
    assert call(node, "DEL", "a", "cid-c").status == 0
    assert "veth0a1b2c3d" in node.links()
    assert "eth0" in node.links("a")


def in_background(node: Node, conf: Any) -> Callable[[], tuple[int, str]]:
    """Start an ADD; a function that waits for its end."""
    environ = node.environment("ADD", "cid-a", "eth0", "/run/netns/a")
    stdin = os.memfd_create("stdin")
    os.write(stdin, json.dumps(conf).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    started = node.popen([node.program("flannel")], env=environ, stdin=stdin, stdout=-1, stderr=-1)
    os.close(stdin)

    def finished() -> tuple[int, str]:
        out, _ = started.communicate(timeout=120)
        return started.returncode, out.decode()

    return finished


def test_add_and_del_at_once_in_the_resident_process(resident: Resident) -> None:
    node = resident.node
    resident.start()
    for _ in range(20):
        finished = in_background(node, CONF)
        assert call(node, "DEL").status == 0
        status, out = finished()
        if not is_overtaken(status, out) and leases(node):
            whole(node)
        else:
            assert set(remains(node)) <= {"neighbours"}
        assert call(node, "DEL").status == 0
    nothing_left(node)


# ----------------------------------------------------------------------- what a killed ADD has left

RECORDS = """
echo $CNI_COMMAND >>/run/calls
[ $CNI_COMMAND != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.9/24"}]}'"""


def test_the_lease_of_a_killed_add_goes_back_to_a_foreign_ipam_plugin(node: Node) -> None:
    node.write_subnet_env()
    forge_plugin(node, "records", RECORDS)
    conf = conf_with(ipam={"type": "records"})
    veth = must_add(node, conf=conf)["interfaces"][1]["name"]
    alias = "flannel:cbr0:cid-a:eth0 (adding)"
    node.run(["ip", "link", "set", veth, "alias", alias])
    must_add(node, conf=conf)
    assert node.path("/run/calls").read_text().split() == ["ADD", "DEL", "ADD"]
    assert node.addresses("a")["eth0"] == ["10.244.1.9/24"]


def test_a_lease_that_another_namespace_has_is_not_a_killed_adds(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    node.run(["ip", "link", "del", "dev", next(n for n in node.links() if n.startswith("veth"))])
    error = add(node, "b", "cid-a").error
    assert error["code"] == 103
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0"}

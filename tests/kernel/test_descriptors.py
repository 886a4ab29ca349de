"""Who has a call's descriptors: nobody after the answer, and no program that a call starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import CONF, call, conf_with, forge_plugin, must_add, remains, running
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.conftest import Node
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(600)]

ROUNDS = 10
NETNS = "/run/netns/a"
SEES = f"""
ls -l /proc/self/fd >/run/seen.$CNI_COMMAND
[ $CNI_COMMAND != ADD ] ||
    echo '{json.dumps({"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.9/24"}]})}'"""


def unmounts_after_del(node: Node, program: str) -> None:
    """Take the namespace's file away right after DEL has answered, as runtimes do."""
    environ = node.environment("DEL", "cid-a", "eth0", NETNS)
    for _ in range(ROUNDS):
        must_add(node)
        done = node.run(["sh", "-c", f"{program}; umount {NETNS}"], json.dumps(CONF), environ)
        assert done.stdout == ""
        assert remains(node) == {}
        node.run(["ip", "netns", "del", "a"], check=False)


def test_the_namespace_is_free_when_del_answers(node: Node) -> None:
    node.write_subnet_env()
    unmounts_after_del(node, str(node.plugins / "flannel"))


def test_the_namespace_is_free_when_the_resident_process_answers(resident: Resident) -> None:
    resident.start()
    unmounts_after_del(resident.node, resident.lonely())


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize("mode", ["plain", "resident", "fallen back"])
@pytest.mark.parametrize("kind", ["delegate", "ipam"])
def test_a_foreign_plugin_gets_its_three_streams_alone(
    resident: Resident, mode: str, kind: str, command: str
) -> None:
    node = resident.node
    if mode == "resident":
        resident.start()
    forge_plugin(node, "sees", SEES)
    conf = conf_with(**{kind: {"type": "sees"}})
    if kind == "ipam":
        conf["delegate"] = {"isGateway": False}
    if command in ("CHECK", "DEL"):
        conf["prevResult"] = must_add(node, conf=conf)
    program = {"plain": "flannel", "fallen back": resident.launcher}.get(mode, resident.lonely())
    call(node, command, conf=conf, plugin=program)
    lines = node.path(f"/run/seen.{command}").read_text().splitlines()
    links = [line.split(" -> ") for line in lines if " -> " in line]
    seen = {name.split()[-1]: target for name, target in links}
    of_ls = {fd for fd, target in seen.items() if target.startswith("/proc/")}
    assert set(seen) - of_ls == {"0", "1", "2"}
    assert seen["0"].startswith("/memfd:")


def test_the_resident_process_has_nothing_that_a_program_inherits(resident: Resident) -> None:
    resident.start()
    call(resident.node, "ADD", plugin=resident.lonely())
    eventually(lambda: not resident.busy(), "it is through with the call")
    folder = f"/proc/{resident.pid()}"
    kept = []
    for fd in os.listdir(f"{folder}/fd"):
        told = Path(f"{folder}/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        flags = next(line for line in told if line.startswith("flags:"))
        if int(flags.split()[1], 8) & os.O_CLOEXEC == 0:
            kept.append(int(fd))
    assert sorted(kept) == [0, 1, 2]


def test_a_failed_socket_ends_no_later_del(resident: Resident) -> None:
    """The kernel refuses one socket to the thread that deletes for all: that DEL alone fails."""
    node = resident.node
    resident.start()
    assert resident.call("ADD").status == 0
    _, _, deleter, *_ = sorted(resident.threads(), key=int)
    inject = "inject=socket:error=ENOMEM:when=1"
    argv = ["strace", "-qq", "-o", "/run/trace", "-e", "trace=socket", "-e", inject, "-p", deleter]
    with running(node, *argv):
        eventually(lambda: is_traced(deleter), "the thread is traced")
        assert "Cannot allocate memory" in resident.call("DEL").error["msg"]
        assert resident.call("DEL", timeout=60).status == 0
    assert "INJECTED" in node.path("/run/trace").read_text()
    assert remains(node) == {}


def is_traced(thread: str) -> bool:
    """Whether somebody traces a thread."""
    return "TracerPid:\t0\n" not in Path(f"/proc/{thread}/status").read_text(encoding="ascii")

"""`python -m conformance containerd`: Debian's containerd and runc as the plugins' client.

A private containerd on a machine of its own runs containers of an image made on the spot, with
`ctr run --cni` and kube-flannel's conflist. First the good days: pages from pod to pod, deletion,
nothing left. Then the bad ones: containerd killed between a task's creation and its start,
tasks deleted without DEL, a reboot. The node's subnet has five addresses, so that whatever is not
given back is soon missed.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from conformance.conflist import Attachment
from conformance.real import node
from conformance.real.image import BUSYBOX, NAME, archive
from conformance.real.machine import BIN_DIR, Machine
from conformance.runtime import PluginError, Runtime
from conformance.stress.figure import Figure, options
from conformance.world import SYSTEM_PATH, WorldError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
CONFIG = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
"""
SERVE = "echo page of {0} >/page/index.html; echo ready; exec httpd -f -p 80 -h /page"


class Containerd:
    """A private containerd on a machine; it ends with the machine at the latest."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("/etc/cni/containerd.toml", CONFIG)
        self.start()
        machine.write("/run/image.tar", archive())
        self.ctr("image", "import", "--snapshotter", "native", "/run/image.tar")

    def start(self) -> None:
        """Start it and wait until it says that it is ready, as it does to systemd."""
        with self.machine.notified("/run/containerd.ready") as ready:
            self._log = self.machine.popen(
                ["containerd", "--config", "/etc/cni/containerd.toml"],
                "/run/containerd.log",
                {"NOTIFY_SOCKET": "/run/containerd.ready"},
            )
            ready()

    def kill(self) -> None:
        """SIGKILL it; shims and tasks live on."""
        for pid, command in self.machine.processes().items():
            if command.startswith("containerd --config"):
                self.machine.run(["kill", "-KILL", str(pid)])
        self._log.wait()

    def ctr(self, *words: str, check: bool = True) -> str:
        """Call its client; what it says."""
        return self.machine.run(["ctr", *words], check=check).stdout

    def _words(self, name: str, *options: str) -> list[str]:
        cgroup = f"/{self.machine.cgroup}/{name}"
        words = ["ctr", "run", "--cni", "--cgroup", cgroup, "--cpu-shares", "0"]
        words += ["--snapshotter", "native", *options, NAME, name]
        return [*words, "/bin/sh", "-c", SERVE.format(name)]

    def run_attached(self, name: str) -> subprocess.Popen[bytes]:
        """Run a web server; its client stays and does DEL when it ends. Returns when it runs."""
        client = self.machine.popen(self._words(name, "--rm"))
        assert client.stdout is not None
        if client.stdout.readline() != b"ready\n":
            raise AssertionError(f"container {name}: {client.communicate()[1].decode()}")
        return client

    def run_detached(self, name: str) -> None:
        """Run a web server; nobody will do DEL for it."""
        self.machine.run(self._words(name, "--detach", "--null-io"))

    def begin_detached(self, name: str) -> subprocess.Popen[bytes]:
        """Begin to run a web server as above; the client, which is at work."""
        return self.machine.popen(self._words(name, "--detach", "--null-io"))

    def forget(self, name: str) -> None:
        """Delete a task and its container; no DEL."""
        self.ctr("task", "rm", "--force", name, check=False)
        self.ctr("container", "rm", name)

    def end(self, name: str, client: subprocess.Popen[bytes]) -> None:
        """End an attached container; its client does DEL."""
        self.ctr("task", "kill", "--signal", "SIGKILL", name)
        said = client.communicate(timeout=60)[1].decode()
        if "network" in said:  # the client goes on and reports nothing else
            raise AssertionError(f"DEL of {name}: {said}")

    def address(self, name: str) -> str:
        """Return a container's address."""
        return node.address_of(self.machine, cni_id(name))

    def page(self, name: str, client: str = "") -> str:
        """Fetch a container's page from within another one, or from the node."""
        command = ["busybox", "wget", "-qO-"]
        if client:
            command = ["ctr", "task", "exec", "--exec-id", f"to-{name}", client, "wget", "-qO-"]
        return node.fetch(self.machine, command, self.address(name))


def cni_id(name: str) -> str:
    """Return the container ID that ctr gives to plugins."""
    return f"default-{name}"


def main(argv: list[str]) -> int:
    """Run everything on one machine, then the reboot on a second one."""
    parser = options("containerd", "a real containerd with runc, good days and bad ones")
    chosen = parser.parse_args(argv)
    names = ("containers", "pages", "kills", "taken back", "reboots", "leftovers")
    figure = Figure("containerd", names, as_json=chosen.json)
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
    if missing:
        figure.fail(
            f"missing: {', '.join(missing)} (apt-get install containerd runc busybox-static)"
        )
        return figure.finish()
    try:
        disk = _good_and_bad_days(chosen.bin_dir, figure)
        _reboot(chosen.bin_dir, figure, disk)
    except (WorldError, AssertionError, PluginError) as error:
        figure.fail(f"{type(error).__name__}: {error}")
    return figure.finish()


def _good_and_bad_days(bin_dir: Path, figure: Figure) -> bytes:
    """Everything before the reboot; the disk."""
    with Machine(bin_dir) as machine:
        node.set_up(machine, bin_dir)
        containerd = Containerd(machine)
        containerd.end("first", containerd.run_attached("first"))
        figure.count("containers")
        normal = node.state(machine)
        _pages(containerd, figure, normal)
        containerd.run_detached("keeper")  # an attached client does DEL when containerd dies
        figure.count("containers")
        _kills(containerd, figure)
        _forgotten(containerd, figure)
        _collect(containerd, figure, ["keeper"])
        containerd.forget("keeper")
        Runtime(machine, BIN_DIR).delete(node.conflist("0.3.1"), Attachment(cni_id("keeper"), ""))
        node.judge_left(machine, figure, normal, "the bad days")
        for number in range(node.POOL):
            containerd.run_detached(f"last-{number}")
            figure.count("containers")
        figure.account(machine.world)
        return node.save(machine)


def _pages(containerd: Containerd, figure: Figure, normal: dict[str, Any]) -> None:
    """Two containers fetch a page from each other, then are deleted."""
    clients = {name: containerd.run_attached(name) for name in ("one", "two")}
    figure.count("containers", 2)
    for name, other in (("one", "two"), ("two", "one"), ("one", ""), ("two", "")):
        seen = containerd.page(name, other)
        node.expect_page(figure, seen, f"page of {name}", f"{other or 'node'} -> {name}")
    for name, client in clients.items():
        containerd.end(name, client)
    node.judge_left(containerd.machine, figure, normal, "two containers")


def _kills(containerd: Containerd, figure: Figure) -> None:
    """SIGKILL between create and start, with flannel's ADD done and portmap's under way.

    Once containerd alone: its client ends the ADD, and the pod of the task, which lives, is there
    afterwards. Once the client and the plugin as well: no runtime has a result of that ADD.
    """
    machine = containerd.machine
    node.gate_portmap(machine)
    for name in ("alone", "all"):
        os.mkfifo(machine.path("/run/gate"))
        client = containerd.begin_detached(name)
        gate = node.at_gate(machine)
        figure.count("containers")
        figure.count("kills")
        containerd.kill()
        if name == "all":
            for pid, command in machine.processes().items():
                if command.startswith(("ctr ", f"/bin/sh {BIN_DIR}", "cat /run/gate")):
                    machine.run(["kill", "-KILL", str(pid)], check=False)
        machine.path("/run/gate").unlink()
        os.close(gate)
        client.communicate()
        if client.returncode == 0:
            figure.fail(f"{name}: the client did not see that containerd was killed")
        containerd.start()
        if name == "alone":
            address = containerd.address(name)
            if machine.run(["ping", "-c1", "-W5", address], check=False).status != 0:
                figure.fail(f"the pod of a task that was not started is not at {address}")
        containerd.forget(name)
        _works(containerd, figure, f"after-{name}")
        owners = set(node.leases(machine).values())
        if owners != {cni_id("keeper"), cni_id("alone"), cni_id(name)}:
            figure.fail(f"nothing was tried: the leases are of {owners}")


def _works(containerd: Containerd, figure: Figure, name: str) -> None:
    """The next container comes up, and goes."""
    client = containerd.run_attached(name)
    figure.count("containers")
    node.expect_page(figure, containerd.page(name), f"page of {name}", f"node -> {name}")
    containerd.end(name, client)


def _forgotten(containerd: Containerd, figure: Figure) -> None:
    """More tasks deleted without DEL than there are addresses; the living one keeps its own."""
    before = node.leases(containerd.machine)
    for number in range(node.POOL + 1):
        name = f"forgotten-{number}"
        containerd.run_detached(name)
        figure.count("containers")
        node.expect_page(figure, containerd.page(name), f"page of {name}", f"node -> {name}")
        containerd.forget(name)
    after = node.leases(containerd.machine)
    figure.count("taken back", len(before) - 1 + node.POOL + 1 - (len(after) - 1))
    seen = containerd.page("keeper")
    node.expect_page(figure, seen, "page of keeper", "the living one, after the pool was full")


def _collect(containerd: Containerd, figure: Figure, living: list[str]) -> None:
    """GC by a runtime of 1.1.0, which has lost every second entry of its cache."""
    machine = containerd.machine
    dead = {owner for owner in node.leases(machine).values() if owner[8:] not in living}
    for owner in sorted(dead)[::2]:
        machine.path(f"/var/lib/cni/results/{node.NETWORK}-{owner}-eth0").unlink(missing_ok=True)
    runtime = Runtime(machine, BIN_DIR)
    for error in runtime.gc(
        node.conflist("1.1.0"), [Attachment(cni_id(name), "") for name in living]
    ):
        figure.fail(f"GC: {error}")
    left = sorted(node.leases(machine).values())
    if left != sorted(map(cni_id, living)):
        figure.fail(f"after GC the leases are of {left}")
    figure.count("taken back", len(dead))
    for name in living:
        seen = containerd.page(name)
        node.expect_page(figure, seen, f"page of {name}", f"node -> {name}, after GC")


def _reboot(bin_dir: Path, figure: Figure, disk: bytes) -> None:
    """Another machine with the files of the first: every address is leased to somebody dead."""
    with Machine(bin_dir) as machine:
        node.restore(machine, disk)
        figure.count("reboots")
        node.set_up(machine, bin_dir)
        dead = node.leases(machine)
        if len(dead) != node.POOL:
            figure.fail(f"nothing was tried: the leases of before the reboot are {dead}")
        containerd = Containerd(machine)
        clients = {}
        for name in ("new-0", "new-1", "new-2"):
            clients[name] = containerd.run_attached(name)
            figure.count("containers")
            node.expect_page(figure, containerd.page(name), f"page of {name}", f"node -> {name}")
        taken = len(dead.keys() & {containerd.address(name) for name in clients})
        figure.count("taken back", taken)
        _collect(containerd, figure, list(clients))
        for name, client in clients.items():
            containerd.end(name, client)
        if left := node.leases(machine):
            figure.fail(f"after the reboot, leases are left of {left}")
        figure.account(machine.world)

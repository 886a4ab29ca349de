"""`python -m conformance podman`: Debian's podman with its CNI backend as the plugins' client.

Podman calls plugins in its own way: namespaces under /run/netns, a requested address and MAC as
CNI_ARGS, published ports as a capability, DEL when the container stops. Two containers serve
pages to each other; one is published on the node; both go, and nothing is left.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from conformance.real import node
from conformance.real.image import BUSYBOX, NAME, archive
from conformance.real.machine import BIN_DIR, CONF_DIR, Machine
from conformance.stress.figure import Figure, options
from conformance.world import SYSTEM_PATH, WorldError

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("podman", "conmon", "runc")
CONFIG = f"""
[network]
network_backend = "cni"
cni_plugin_dirs = ["{BIN_DIR}"]
network_config_dir = "{CONF_DIR}"
default_network = "{node.NETWORK}"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[containers]
pids_limit = 0
log_driver = "k8s-file"
"""
SERVE = "echo page of {0} >/page/index.html; exec httpd -f -p 80 -h /page"
ADDRESS, MAC, PORT = "10.244.1.5", "02:00:5e:10:00:05", 8080


class Podman:
    """Podman on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.write("/etc/cni/containers.conf", CONFIG)
        machine.write("/etc/cni/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        machine.write("/run/image.tar", archive())
        self.call("load", "--signature-policy", "/etc/cni/policy.json", "--input", "/run/image.tar")

    def call(self, *words: str, check: bool = True) -> str:
        """Call podman; what it says."""
        own = ["--storage-driver", "vfs", "--root", "/var/lib/podman", "--runroot", "/run/podman"]
        environ = {"PATH": SYSTEM_PATH, "CONTAINERS_CONF": "/etc/cni/containers.conf"}
        return self.machine.run(["podman", *own, *words], env=environ, check=check).stdout

    def run(self, name: str, *options: str) -> str:
        """Run a web server; its container ID."""
        parent = ["--cgroup-parent", f"/{self.machine.cgroup}", "--network", node.NETWORK]
        words = ["--detach", "--name", name, *parent, *options, NAME]
        return self.call("run", *words, "/bin/sh", "-c", SERVE.format(name)).strip()

    def page(self, client: str, address: str) -> str:
        """Fetch a page from a container's network, or from the node's."""
        inside = ["nsenter", f"--net={self._netns(client)}"] if client else []
        return node.fetch(self.machine, [*inside, "busybox", "wget", "-qO-"], address)

    def _netns(self, name: str) -> str:
        return self.call("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", name).strip()


def main(argv: list[str]) -> int:
    """Run everything on one machine."""
    parser = options("podman", "podman with its CNI backend")
    chosen = parser.parse_args(argv)
    figure = Figure("podman", ("containers", "pages", "leftovers"), as_json=chosen.json)
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
    if missing:
        figure.fail(f"missing: {', '.join(missing)} (apt-get install podman runc busybox-static)")
        return figure.finish()
    try:
        _run(chosen.bin_dir, figure)
    except (WorldError, AssertionError) as error:
        figure.fail(f"{type(error).__name__}: {error}")
    return figure.finish()


def _run(bin_dir: Path, figure: Figure) -> None:
    """First one container for what all share, then two that speak to each other."""
    with Machine(bin_dir) as machine:
        node.set_up(machine, bin_dir)
        podman = Podman(machine)
        podman.run("first", "--publish", f"{PORT}:80")
        podman.call("rm", "--force", "--time", "0", "first")
        normal = node.state(machine)
        ids = {
            "one": podman.run("one", "--publish", f"{PORT}:80"),
            "two": podman.run("two", "--ip", ADDRESS, "--mac-address", MAC),
        }
        figure.count("containers", 3)
        addresses = {name: node.address_of(machine, ids[name]) for name in ids}
        result = node.result_of(machine, ids["two"])
        if (addresses["two"], result["interfaces"][2]["mac"]) != (ADDRESS, MAC):
            figure.fail(f"the requested address and MAC: {result}")
        ways = [("", name, address) for name, address in addresses.items()]
        ways += [("one", "two", ADDRESS), ("two", "one", addresses["one"])]
        ways += [("", "one", f"127.0.0.1:{PORT}"), ("two", "one", f"10.244.1.1:{PORT}")]
        for client, name, address in ways:
            seen = podman.page(client, address)
            node.expect_page(figure, seen, f"page of {name}", f"{client or 'node'} -> {address}")
        for name in ids:
            podman.call("rm", "--force", "--time", "0", name)
        node.judge_left(machine, figure, normal, "two containers")
        figure.account(machine.world)

"""What both runtimes share: a node's configuration on a machine, and what pods leave there."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from netaddr import IPNetwork

from conformance.conflist import Conflist
from conformance.real.machine import BIN_DIR, CONF_DIR
from conformance.runtime import RESULTS
from conformance.state import difference, read_rules, read_space

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.real.machine import Machine
    from conformance.stress.figure import Figure

NETWORK = "cbr0"
LEASES = f"/var/lib/cni/networks/{NETWORK}"
SUBNET = "10.244.1.1/29"
POOL = len([*IPNetwork(SUBNET).iter_hosts()]) - 1  # addresses for pods: all but the gateway's
_FLANNEL = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
_PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
_PATIENCE_S = 60.0
_BEFORE_BOOT_S = 3600.0


def conflist(version: str) -> Conflist:
    """Return kube-flannel's list for 0.3.1; for 1.1.0 the same without portmap, which is older."""
    plugins = [_FLANNEL, _PORTMAP] if version == "0.3.1" else [_FLANNEL]
    document = {"name": NETWORK, "cniVersion": version, "plugins": plugins}
    return Conflist.parse(json.dumps(document).encode())


def set_up(machine: Machine, bin_dir: Path) -> None:
    """Put plugins, conflist and the daemon's file in their places."""
    machine.install(bin_dir, ["portmap", "loopback"])
    machine.write(f"{CONF_DIR}/10-flannel.conflist", conflist("0.3.1").text)
    machine.world.write_subnet_env(subnet=SUBNET)


def result_of(machine: Machine, container_id: str) -> dict[str, Any]:
    """Return the result in the cache that the runtime's libcni has written for a container."""
    file = machine.path(f"{RESULTS}/{NETWORK}-{container_id}-eth0")
    result = json.loads(file.read_bytes())["result"]
    assert isinstance(result, dict)
    return result


def address_of(machine: Machine, container_id: str) -> str:
    """Return a container's address."""
    return str(IPNetwork(result_of(machine, container_id)["ips"][0]["address"]).ip)


def leases(machine: Machine) -> dict[str, str]:
    """Address -> container ID of every lease of the network."""
    folder = machine.path(LEASES)
    files = folder.iterdir() if folder.is_dir() else ()
    return {
        file.name: file.read_bytes().partition(b"\r\n")[0].decode()
        for file in files
        if file.name[0].isdigit()
    }


def state(machine: Machine) -> dict[str, Any]:
    """Everything that pods may leave on a machine, without what changes by itself."""
    host = read_space(machine.path("/proc/1/ns/net"))
    host["neighbours"] = []
    for link in host["links"].values():
        link.pop("index")
    files = machine.world.files("/var/lib/cni")
    return {
        "host": host,
        "rules": read_rules(machine.world),
        "files": [name for name in files if "/." not in f"/{name}"],
        "processes": sorted(machine.processes().values()),
        "cgroups": machine.cgroups(),
        "namespaces": sorted(os.listdir(machine.path("/run/netns"))),
    }


def judge_left(machine: Machine, figure: Figure, normal: dict[str, Any], what: str) -> None:
    """Count what is different from how it was; wait for what is on its way out."""
    end = time.monotonic() + _PATIENCE_S
    while lines := difference(normal, state(machine)):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    figure.count("leftovers", len(lines))
    for line in lines:
        figure.fail(f"after {what}: {line}")


def fetch(machine: Machine, command: list[str], address: str) -> str:
    """Get a page with a client that the command starts; repeated while the server comes up.

    Also when it was silent: ctr loses the output of a short command now and then.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        done = machine.run([*command, f"http://{address}/"], check=False)
        if (done.status == 0 and done.stdout) or time.monotonic() > end:
            return done.stdout.strip() or f"status {done.status}: {done.stderr.strip()}"
        time.sleep(0.05)


def expect_page(figure: Figure, seen: str, expected: str, what: str) -> None:
    """Count a page, and fail if it is not the one expected."""
    figure.count("pages")
    if seen != expected:
        figure.fail(f"{what}: {seen!r} instead of {expected!r}")


def save(machine: Machine) -> bytes:
    """Return what a disk would keep of a machine: /var/lib, as a tar archive."""
    machine.run(["tar", "--format=posix", "-C", "/var/lib", "-cf", "/run/disk.tar", "."])
    return machine.path("/run/disk.tar").read_bytes()


def restore(machine: Machine, disk: bytes) -> None:
    """Put the files of another machine into this one, as of an hour before the boot."""
    machine.write("/run/disk.tar", disk)
    machine.run(["tar", "-C", "/var/lib", "-xf", "/run/disk.tar"])
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for folder, _, names in os.walk(machine.path("/var/lib/cni")):
        for name in names:
            times = (boot - _BEFORE_BOOT_S, boot - _BEFORE_BOOT_S)
            os.utime(f"{folder}/{name}", times, follow_symlinks=False)


def gate_portmap(machine: Machine) -> None:
    """Let portmap's next ADDs wait where there is a pipe /run/gate, until somebody closes it."""
    machine.run(["mv", f"{BIN_DIR}/portmap", "/opt/portmap"])
    wait = '[ "$CNI_COMMAND" = ADD ] && [ -p /run/gate ] && cat /run/gate >/dev/null'
    machine.write(f"{BIN_DIR}/portmap", f"#!/bin/sh\n{wait}\nexec /opt/portmap\n", 0o755)


def at_gate(machine: Machine) -> int:
    """Wait until a plugin waits at the gate; closing the file that is returned lets it go on."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.open(machine.path("/run/gate"), os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)

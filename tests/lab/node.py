"""A node: a network namespace on the underlay, with /run and /var/lib of its own, and its pods.

The daemon is a program like any other here: $FLANNELD_BIN, by default dist/flanneld/flanneld; the
word `source` runs the checkout. Pods are attached by the frozen plugins, as a runtime does it.
"""

from __future__ import annotations

import http
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.lab import web
from tests.lab.space import ROOT, LabError, Space, until
from tests.lab.underlay import GATEWAY, GATEWAY6

if TYPE_CHECKING:
    from tests.lab.space import Process
    from tests.lab.underlay import Underlay

PLUGINS = Path(os.environ.get("CNI_FLANNEL_BIN", ROOT / "dist" / "cni-flannel"))
FROZEN = ROOT / "dist" / "flanneld" / "flanneld"
SOURCE = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "flanneld")
HEALTH_PORT = 8081
SUBNET_ENV = "/run/flannel/subnet.env"
LOG = "/run/flanneld.log"

CONF = {
    "cniVersion": "1.0.0",
    "name": "cbr0",
    "type": "flannel",
    "delegate": {"hairpinMode": True, "isDefaultGateway": True},
}

# Arguments: the port's name on the bridge, the node's addresses. PID 1 is the underlay's holder.
# An uplink has its link-local address long before there are pods: nobody here waits for its DAD.
_SETUP = f"""
set -e
mount -t tmpfs -o mode=755 node /run
mount -t tmpfs -o mode=755 node /var/lib
mount -t sysfs -o ro node /sys
mkdir -p /run/netns /run/flannel /var/lib/cni
ip link set lo up
ip link add eth0 type veth peer name "$0" netns 1
sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip address add "$1/24" dev eth0
ip address add "$2/64" dev eth0 nodad
ip link set eth0 up
nsenter --target 1 --net ip link set "$0" master underlay up
ip route add default via {GATEWAY}
ip route add default via {GATEWAY6}
echo ready
exec cat >/dev/null
"""


def program() -> tuple[str, ...]:
    """Give the command that is the daemon under test. LabError if it is not built."""
    wanted = os.environ.get("FLANNELD_BIN") or str(FROZEN)
    if wanted == "source":
        return SOURCE
    if not os.access(wanted, os.X_OK):
        raise LabError(f"{wanted} is not built: run ./build.sh, or set FLANNELD_BIN=source")
    return (wanted,)


class Pod(NamedTuple):
    """An attached pod: the path of its namespace as seen from here, and its addresses by family."""

    name: str
    node: Node
    netns: Path
    addresses: dict[int, str]

    @property
    def inside(self) -> str:
        """Path of the namespace as seen from the node."""
        return f"/run/netns/{self.name}"


class Node(Space):
    """A machine of the network."""

    def __init__(self, underlay: Underlay, number: int) -> None:
        self.number = number
        self.address, self.address6 = f"192.168.64.{number}", f"fd00:64::{number:x}"
        self.port = f"port{number}"
        unshare = ("unshare", "--net", "--mount", "--propagation", "private")
        setup = ("sh", "-c", _SETUP, self.port, self.address, self.address6)
        super().__init__(f"node{number}", [*underlay.enter, *unshare, *setup])
        self.daemon: Process | None = None
        self.pods: list[Pod] = []

    # ---------------------------------------------------------------------------------- the daemon

    def start_daemon(self, *flags: str, command: tuple[str, ...] | None = None) -> Process:
        """Start the daemon, with etcd on the underlay."""
        self.daemon = self.start(
            *(command or program()),
            *("--etcd-endpoints", f"http://{GATEWAY}:2379", "--ip-masq"),
            *("--healthz-port", str(HEALTH_PORT), *flags),
            log=LOG,
        )
        return self.daemon

    def stop_daemon(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the daemon a signal and wait for its end; the exit status."""
        assert self.daemon is not None
        self.daemon.signal(number)
        return self.daemon.wait()

    def is_ready(self) -> bool:
        """Whether /readyz says so; LabError if the daemon has ended."""
        if self.daemon is None or not self.daemon.is_running:
            raise LabError(f"{self.name}'s daemon does not run:\n{self.log()}")
        try:
            return self.get("/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def await_ready(self) -> float:
        """Wait for it; the seconds."""
        try:
            return until(f"{self.name} ready", self.is_ready)
        except LabError as error:
            raise LabError(f"{error}\n{self.log()}") from error

    def await_peers(self, count: int) -> float:
        """Wait until it is ready with so many peers; the seconds. LabError with the log."""
        try:
            # Each look is work for the daemon: not more of it than it takes.
            return until(
                f"{self.name} ready with {count} peers",
                lambda: self.is_ready() and self.metric("flannel_peers") == count,
                patience_s=120,
                pause_s=0.05,
            )
        except LabError as error:
            raise LabError(f"{error}\n{self.log()}") from error

    def get(self, page: str) -> tuple[int, str]:
        """Fetch a page of the daemon: status and text. OSError."""
        status, content = web.get(self.netns, "127.0.0.1", HEALTH_PORT, page)
        return status, content.decode()

    def metric(self, name: str) -> float:
        """Give the value of a metric without labels. LabError."""
        try:
            _, text = self.get("/metrics")
        except OSError as error:
            raise LabError(f"{self.name}: {name}: {error}\n{self.log()}") from error
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise LabError(f"{self.name}: no metric {name}")

    def log(self) -> str:
        """Give everything that the daemon has written."""
        return self.path(LOG).read_text() if self.path(LOG).exists() else ""

    def subnet_env(self) -> dict[str, str]:
        """Read the daemon's file; {} if it is not there."""
        try:
            lines = self.path(SUBNET_ENV).read_text().splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines)

    def cleanup(self) -> None:
        """Run `flanneld cleanup`, and take away the pods' bridge and what outlives a reboot."""
        self.run(*program(), "cleanup")
        self.sh(f"rm -rf {SUBNET_ENV} /var/lib/flannel /var/lib/cni; ip link delete cni0")

    def command(self, *argv: str) -> dict[str, Any]:
        """Run a command of the daemon's program that prints JSON, whatever it exits with."""
        done = self.run(*program(), *argv, "--json", check=False)
        document: dict[str, Any] = json.loads(done.stdout or "null")
        assert document is not None, done
        return document

    # ------------------------------------------------------------------------------------ its pods

    def attach(self, name: str = "") -> Pod:
        """Make a pod and attach it with the frozen plugin."""
        name = name or f"pod{self.number}{chr(ord('a') + len(self.pods))}"
        self.run("ip", "netns", "add", name)
        self.run("ip", "-n", name, "link", "set", "lo", "up")
        result = self._cni("ADD", name)
        addresses = [ip["address"].partition("/")[0] for ip in result["ips"]]
        by_family = {6 if ":" in address else 4: address for address in addresses}
        pod = Pod(name, self, self.path(f"/run/netns/{name}"), by_family)
        self.pods.append(pod)
        return pod

    def detach(self, pod: Pod) -> None:
        """Detach a pod and remove it."""
        self._cni("DEL", pod.name)
        self.run("ip", "netns", "del", pod.name)
        self.pods.remove(pod)

    def _cni(self, command: str, pod: str) -> dict[str, Any]:
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
        }
        done = self.run(str(PLUGINS / "flannel"), text=json.dumps(CONF), env=environ, check=False)
        if done.status != 0:
            raise LabError(f"{self.name}: {command} of {pod}: {done.stdout}{done.stderr}")
        result: dict[str, Any] = json.loads(done.stdout or "{}")
        return result

"""Nodes as network namespaces on one underlay, each with its daemon, and an etcd between them.

To be made inside ``privatens.private``: everything lives in that test's own network and mount
namespaces, and every process dies with the test (PR_SET_PDEATHSIG through setpriv).

FLANNELD_BIN names the program under test (by default dist/flanneld/flanneld); the word `source`
runs the checkout unfrozen.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.flanneld.etcdserver import EtcdServer
from tests.kernel.privatens import sh

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
UNDERLAY = "192.168.64"
GATEWAY = 254
# The daemon of the checkout, which looks again soon at what it looks at every 5 and 30 seconds.
HASTY = """
import sys
from flanneld import __main__, daemon
for interval in ("TICK_S", "_CONF_S", "_EXAMINE_S"):
    assert getattr(daemon, interval) >= 5
    setattr(daemon, interval, 0.7)
sys.exit(__main__.main(sys.argv[1:]))
"""


def program() -> list[str]:
    where = os.environ.get("FLANNELD_BIN") or str(ROOT / "dist" / "flanneld" / "flanneld")
    return [sys.executable, "-m", "flanneld"] if where == "source" else [where]


def eventually(what: str, holds: Callable[[], object]) -> None:
    """Wait until something holds; the last refusal, if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
            refusal = "it does not hold"
        except (AssertionError, OSError, LookupError) as error:
            refusal = repr(error)
        assert time.monotonic() < deadline, f"{what}: {refusal}"
        time.sleep(0.05)


class Node:
    """A namespace with eth0 on the underlay, and at most one daemon."""

    def __init__(self, number: int, folder: Path, flags: tuple[str, ...]) -> None:
        self.number = number
        self.name = f"node{number}"
        self.address = f"{UNDERLAY}.{number}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.subnet_file = self.folder / "run" / "subnet.env"
        self.flags = flags
        self.program = program()
        self.process: subprocess.Popen[bytes] | None = None
        sh(f"ip netns add {self.name}; ip -n {self.name} link set lo up")
        self.connect()

    def connect(self) -> None:
        """Put eth0 in place, on the underlay."""
        number = self.number
        sh(f"""
            ip link add to{number} type veth peer name eth0 netns {self.name}
            ip link set to{number} master underlay up
            ip -n {self.name} address add {self.address}/24 dev eth0
            ip -n {self.name} address add fd64::{number}/64 dev eth0 nodad
            ip -n {self.name} link set eth0 up
            ip -n {self.name} route add default via {UNDERLAY}.{GATEWAY}
            ip -n {self.name} -6 route add default via fd64::{GATEWAY}
        """)

    # ---------------------------------------------------------------------------------- the daemon

    def start(self, *flags: str, **environ: str) -> None:
        """Start the daemon; what it logs is appended."""
        files = ("--subnet-file", str(self.subnet_file), "--data-dir", str(self.folder / "data"))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name),
                    *self.program,
                    *files,
                    *("--healthz-port", "8081", *self.flags, *flags),
                ],
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **environ},
            )

    def beside(self, *command: str) -> subprocess.Popen[bytes]:
        """Start another program in this node's namespace."""
        enter = ("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name)
        return subprocess.Popen([*enter, *command])

    def flanneld(self, command: str, *flags: str, status: int | None = None) -> str:
        """Run one of the daemon's commands here; all that it prints."""
        enter = ("ip", "netns", "exec", self.name)
        files = ("--subnet-file", str(self.subnet_file))
        done = subprocess.run(
            [*enter, *program(), command, *files, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert status is None or done.returncode == status, done.stdout
        return done.stdout

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.status()

    def status(self) -> int:
        """Wait for the daemon's end."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def restart(self, *flags: str) -> None:
        """End the daemon, start it anew, and wait until it is ready."""
        self.end()
        self.start(*flags)
        self.ready()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ready(self) -> None:
        """Wait until the daemon says that it is ready."""
        assert self.process is not None
        process = self.process

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended\n{self.log}")
            return self.get("readyz").partition("\n")[0] == "flanneld is ready"

        try:
            eventually(f"{self.name} ready", answers)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.get('readyz')}\n{self.log}") from None

    def get(self, page: str) -> str:
        """Fetch a page of the daemon, whatever its status."""
        command = f"ip netns exec {self.name} curl -s http://127.0.0.1:8081/{page}"
        return subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout

    def metric(self, name: str) -> float:
        lines = [line.split() for line in self.get("metrics").splitlines()]
        return float(dict(line for line in lines if line and line[0] != "#")[f"flannel_{name}"])

    @property
    def env(self) -> dict[str, str]:
        lines = self.subnet_file.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def base(self) -> str:
        """The address of the vxlan device: the first of the node's subnet."""
        return self.env["FLANNEL_SUBNET"].removesuffix(".1/24") + ".0"

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the program beside the daemon."""
        files = ("--subnet-file", str(self.subnet_file))
        argv = ["ip", "netns", "exec", self.name, *program(), *words, *files]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    # ---------------------------------------------------------------------------------- the kernel

    def attach(self) -> None:
        """Give the node a bridge, and a pod on it, as the plugins do."""
        gateway = self.env["FLANNEL_SUBNET"]
        sh(f"""
            ip -n {self.name} link add cni0 type bridge
            ip -n {self.name} address add {gateway} dev cni0
            ip -n {self.name} link set cni0 up
            ip netns add {self.pod_name}
            ip -n {self.name} link add veth0 type veth peer name eth0 netns {self.pod_name}
            ip -n {self.name} link set veth0 master cni0 up alias flannel:cbr0:0123:eth0
            ip -n {self.pod_name} address add {self.pod}/24 dev eth0
            ip -n {self.pod_name} link set eth0 up
            ip -n {self.pod_name} route add default via {gateway.partition("/")[0]}
            ip netns exec {self.name} sysctl -qw net.ipv4.ip_forward=1
        """)

    @property
    def pod_name(self) -> str:
        return f"pod{self.number}"

    @property
    def pod(self) -> str:
        """The address of the node's pod."""
        return self.env["FLANNEL_SUBNET"].removesuffix(".1/24") + ".5"

    def sh(self, command: str) -> str:
        return sh(f"ip netns exec {self.name} {command}")

    def ip(self, *argv: str) -> list[dict[str, Any]]:
        text = sh(f"ip -n {self.name} -j -d {' '.join(argv)}")
        return [entry for entry in json.loads(text or "[]") if entry]

    def routes(self, device: str = "flannel.1") -> dict[str, str]:
        """Gateways by destination of the routes through a device."""
        try:
            found = self.ip("route", "show", "dev", device)
        except AssertionError:
            return {}
        return {route["dst"]: route.get("gateway", "") for route in found}

    def link(self, name: str = "flannel.1") -> dict[str, Any]:
        return self.ip("link", "show", name)[0]

    def reaches(self, address: str, *, by_pod: bool = False) -> bool:
        space = self.pod_name if by_pod else self.name
        ping = f"ip netns exec {space} ping -n -q -c 1 -W 1 {address}"
        return subprocess.run(ping.split(), capture_output=True, check=False).returncode == 0


class Scene:
    """The underlay, an etcd at its gateway's address, and nodes numbered from 1."""

    def __init__(self, folder: Path, nodes: int = 2, *flags: str, **conf: Any) -> None:
        sh(f"""
            ip link add underlay type bridge
            ip address add {UNDERLAY}.{GATEWAY}/24 dev underlay
            ip address add fd64::{GATEWAY}/64 dev underlay nodad
            ip link set underlay up
            mkdir -p /run/netns
        """)
        home = folder / "etcd"
        home.mkdir()
        self.etcd = EtcdServer(home, host=f"{UNDERLAY}.{GATEWAY}")
        self.etcd.start()
        self.etcd.configure(**{"Backend": {"Type": "vxlan"}, **conf})
        everywhere = ("--etcd-endpoints", self.etcd.url, *flags)
        self.nodes = [Node(number, folder, everywhere) for number in range(1, nodes + 1)]

    def hasten(self) -> None:
        """Have daemons that look often: what no event tells them, they find out soon."""
        for node in self.nodes:
            node.program = [sys.executable, "-c", HASTY]

    def start(self) -> None:
        """Start all daemons and wait until each has programmed the others."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.ready()
            eventually(f"{node.name} knows all", partial(self._is_complete, node))

    def _is_complete(self, node: Node) -> bool:
        return node.metric("peers") == len(self.nodes) - 1 and node.metric("ready") == 1

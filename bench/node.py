"""The node on which the benchmark takes place, and the competitors, each with a network of its own.

A side is called with a bridge, a subnet and a data directory that the others do not use. The
resident process lives as long as the benchmark at the most, and says what it serves, so that at the
end it is known that its launchers did no call by themselves.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.call import Call

PLUGINS = Path(__file__).resolve().parents[1] / "dist" / "cni-flannel"
GO_PLUGINS = Path("/usr/lib/cni")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PARALLEL = 64
SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.{}.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
_START_S = 30.0


class Side:
    """One competitor: its name, and how to call it."""

    socket = "/nonexistent"  # no resident process serves it

    def __init__(self, name: str, program: Path, conf: dict[str, Any]) -> None:
        self.name = name
        self.program = program
        self.conf = {"cniVersion": "1.0.0", "name": name, **conf}

    def call(self, command: str, pod: str) -> Call:
        """A prepared call for one pod."""
        return self._call(self.program, command, pod, self.conf)

    def ipam_call(self, command: str, leases: int) -> Call:
        """A prepared call of host-local alone, on a network that holds a number of leases."""
        program = self.program.parent / "host-local"
        return self._call(program, command, "pod0", ipam_conf(self.name, leases))

    def _call(self, program: Path, command: str, pod: str, conf: dict[str, Any]) -> Call:
        environ = {
            "PATH": PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"{self.name}-{pod}",
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(program.parent),
            "CNI_FLANNEL_SOCKET": self.socket,
        }
        return Call(str(program), environ, json.dumps(conf).encode())

    def cpu_s(self) -> float:
        """Processor time of whatever works for this side beside the processes that are called."""
        return 0.0


class Resident(Side):
    """Launchers, and the process that they hand their calls to."""

    socket = ""  # the usual one

    def start(self) -> None:
        """Start the process, and wait until it serves; it ends with this one."""
        self._log = os.memfd_create("log")
        # Threads that write at once share one position: without, a line overwrites another.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        command = ["setpriv", "--pdeathsig", "KILL", str(PLUGINS / "flannel")]
        self.process = subprocess.Popen([*command, "serve", "--log-calls"], stderr=self._log)
        self._clock = ~self.process.pid << 3 | 2  # CPUCLOCK_SCHED of another process
        end = time.monotonic() + _START_S
        while "serving" not in self.log():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"flannel serve did not start: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """Everything that the process has said."""
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode()

    def cpu_s(self) -> float:
        """Processor time of the process."""
        return time.clock_gettime(self._clock)

    def memory_mib(self) -> float:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> int:
        """End the process; how many calls it has served."""
        self.process.terminate()
        self.process.wait()
        return self.log().count("\nserved ")


def _flannel(name: str) -> dict[str, Any]:
    return {
        "type": "flannel",
        "subnetFile": f"/run/flannel/{name}.env",
        "delegate": {"bridge": f"{name}0"},
    }


FROZEN = Side("frozen", PLUGINS / "flannel", _flannel("frozen"))
RESIDENT = Resident("resident", PLUGINS / "flannel", _flannel("resident"))
PEER = Side(
    "Go",
    GO_PLUGINS / "bridge",
    {
        "type": "bridge",
        "bridge": "go0",
        "isGateway": True,
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.3.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    },
)


def ipam_conf(side: str, leases: int) -> dict[str, Any]:
    """Conf of host-local alone, for a network with room for the leases."""
    network = f"{side}-{leases}"
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.64.0.0/15"}]]}
    return {"cniVersion": "1.0.0", "name": network, "type": "bench", "ipam": ipam}


def make_node() -> None:
    """Private /run and /var/lib, the daemon's files, a network namespace per pod."""
    for folder in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "bench", folder)
    run("ip", "link", "set", "lo", "up")
    Path("/run/flannel").mkdir()
    for number, side in enumerate((FROZEN, RESIDENT), 1):
        Path(f"/run/flannel/{side.name}.env").write_text(SUBNET_ENV.format(number))
    for number in range(PARALLEL):
        run("ip", "netns", "add", f"pod{number}")


def fill(side: Side, leases: int) -> None:
    """Lay down leases as host-local writes them, from the range's first address on."""
    folder = Path("/var/lib/cni/networks", ipam_conf(side.name, leases)["name"])
    folder.mkdir(parents=True)
    for number in range(2, leases + 2):
        address = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        (folder / address).write_bytes(b"filled-%d\r\neth0" % number)


def run(*command: str) -> None:
    """Run a program of the system, which must succeed."""
    subprocess.run(command, check=True, env={"PATH": PATH}, stdout=subprocess.DEVNULL)

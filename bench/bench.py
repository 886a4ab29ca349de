"""The pair against Debian's Go plugins, side by side in one run. Run by `./build.sh bench`.

Every figure compares `flannel` (one process) with Go's `bridge` -> `host-local` (two), which gets
the conf that flannel would give it. The two sides take turns, so that whatever else the machine
does falls on both; figures are medians, and what counts are the ratios. Everything happens in
private network and mount namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.call import Call, peak_memory
from bench.report import Figure, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGINS = Path(__file__).resolve().parents[1] / "dist" / "cni-flannel"
GO = Path("/usr/lib/cni")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PARALLEL = 64
LEASES = (0, 1_000, 20_000)


class Side:
    """One competitor: how to call it, on a bridge, subnet and data directory of its own."""

    def __init__(self, name: str, program: Path, ipam: Path, conf: dict[str, Any]) -> None:
        self.name = name
        self.program = program
        self.ipam = ipam
        self.conf = conf

    def call(self, command: str, pod: str) -> Call:
        """A prepared call for one pod."""
        return self._call(self.program, command, pod, self.conf)

    def ipam_call(self, command: str, leases: int) -> Call:
        """A prepared call of host-local alone, on a network that holds a number of leases."""
        return self._call(self.ipam, command, "pod0", ipam_conf(self.name, leases))

    def _call(self, program: Path, command: str, pod: str, conf: dict[str, Any]) -> Call:
        environ = {
            "PATH": PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"{self.name}-{pod}",
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(program.parent),
        }
        return Call(str(program), environ, json.dumps(conf).encode())


OURS = Side(
    "ours",
    PLUGINS / "flannel",
    PLUGINS / "host-local",
    {"cniVersion": "1.0.0", "name": "ours", "type": "flannel", "delegate": {"bridge": "ours0"}},
)
THEIRS = Side(
    "go",
    GO / "bridge",
    GO / "host-local",
    {
        "cniVersion": "1.0.0",
        "name": "go",
        "type": "bridge",
        "bridge": "go0",
        "isGateway": True,
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.245.1.0/24"}]],
            "routes": [{"dst": "10.245.0.0/16"}],
        },
    },
)
SIDES = (OURS, THEIRS)
SUBNET_ENV = """\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


def ipam_conf(side: str, leases: int) -> dict[str, Any]:
    """Conf of host-local alone, for a network with room for the leases."""
    network = f"{side}-{leases}"
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.64.0.0/15"}]]}
    return {"cniVersion": "1.0.0", "name": network, "type": "bench", "ipam": ipam}


# ----------------------------------------------------------------------------------------- the node


def make_node() -> None:
    """Private /run and /var/lib, the daemon's file, a network namespace per pod."""
    for folder in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "bench", folder)
    run("ip", "link", "set", "lo", "up")
    Path("/run/flannel").mkdir()
    Path("/run/flannel/subnet.env").write_text(SUBNET_ENV)
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
    subprocess.run(command, check=True, env={"PATH": PATH}, stdout=subprocess.DEVNULL)


# ------------------------------------------------------------------------------------- measurements


def one_at_a_time(rounds: int) -> dict[str, dict[str, list[float]]]:
    """ADD and DEL of one pod, the sides taking turns: figure -> side -> values (ms)."""
    values: dict[str, dict[str, list[float]]] = {
        figure: {side.name: [] for side in SIDES} for figure in ("ADD", "DEL", "CPU")
    }
    calls = {side.name: (side.call("ADD", "pod0"), side.call("DEL", "pod0")) for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            add, delete = calls[side.name]
            added = add.run()
            deleted = delete.run()
            values["ADD"][side.name].append(added.wall_ms)
            values["CPU"][side.name].append(added.cpu_ms)
            values["DEL"][side.name].append(deleted.wall_ms)
    return values


def in_parallel(rounds: int) -> dict[str, list[float]]:
    """Attachments a second when PARALLEL pods start at once: side -> values."""
    rates: dict[str, list[float]] = {side.name: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            adds = [side.call("ADD", f"pod{pod}") for pod in range(PARALLEL)]
            rates[side.name].append(PARALLEL / Call.run_all(adds) * 1000)
            Call.run_all([side.call("DEL", f"pod{pod}") for pod in range(PARALLEL)])
    return rates


def ipam(rounds: int) -> dict[int, dict[str, list[float]]]:
    """ADD + DEL of host-local alone: leases on the disk -> side -> values (ms)."""
    values: dict[int, dict[str, list[float]]] = {}
    for leases in LEASES:
        values[leases] = {side.name: [] for side in SIDES}
        calls = {}
        for side in SIDES:
            fill(side, leases)
            calls[side.name] = (side.ipam_call("ADD", leases), side.ipam_call("DEL", leases))
            for call in calls[side.name]:
                call.run()
    for number in range(rounds):
        for leases in LEASES:
            for side in SIDES if number % 2 else SIDES[::-1]:
                pair = (side.ipam_call("ADD", leases), side.ipam_call("DEL", leases))
                values[leases][side.name].append(sum(call.run().wall_ms for call in pair))
    return values


def memory() -> dict[str, float]:
    """Peak resident memory of one ADD, MiB: the larger process of each side."""
    peaks = {}
    for side in SIDES:
        peak = peak_memory(side.call("ADD", "pod0"))
        side.call("DEL", "pod0").run()
        peaks[side.name] = max(peak, peak_memory(side.ipam_call("ADD", 0)))
        side.ipam_call("DEL", 0).run()
    return peaks


def folder_megabytes() -> float:
    """The pair and its runtime; the launchers of resident mode are files of their own."""
    files = [file for file in PLUGINS.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if file.parent.name != "launcher") / 1e6


# ------------------------------------------------------------------------------------------- report


def median(values: dict[str, list[float]]) -> tuple[float, float]:
    """Ours and Go's median."""
    return statistics.median(values["ours"]), statistics.median(values["go"])


def figures(rounds: int, note: Callable[[str], None]) -> list[Figure]:
    """Measure everything; bars and goals are those of the project's design."""
    note(f"{rounds} x ADD and DEL")
    single = one_at_a_time(rounds)
    note(f"{PARALLEL} in parallel")
    parallel = in_parallel(max(3, rounds // 20))
    note("host-local with 0, 1,000 and 20,000 leases")
    leases = ipam(max(5, rounds // 4))
    peaks = memory()
    add, delete, cpu, rate = (
        median(single["ADD"]),
        median(single["DEL"]),
        median(single["CPU"]),
        median(parallel),
    )
    growth = {
        side.name: statistics.median(leases[LEASES[-1]][side.name])
        / statistics.median(leases[0][side.name])
        for side in SIDES
    }
    return [
        Figure("ADD", "ms", *add, ratio=add[0] / add[1], bar=2.0, goal=1.0),
        Figure("DEL", "ms", *delete, ratio=delete[0] / delete[1], bar=1.3, goal=1.0),
        Figure(
            f"ADD, {PARALLEL} in parallel",
            "/s",
            *rate,
            ratio=rate[0] / rate[1],
            bar=0.6,
            goal=1.5,
            more=True,
        ),
        Figure("CPU per ADD", "ms", *cpu, ratio=cpu[0] / cpu[1], bar=2.0, goal=0.7),
        Figure("peak memory of a call", "MiB", peaks["ours"], peaks["go"], bar=18.0, goal=12.0),
        Figure("size of the folder", "MB", folder_megabytes(), None, bar=16.0, goal=10.0),
        *(
            Figure(f"IPAM ADD+DEL, {count:,} leases", "ms", *median(leases[count]))
            for count in LEASES
        ),
        Figure("IPAM, 20,000 leases / none", "x", growth["ours"], growth["go"], bar=1.5, goal=1.1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./build.sh bench", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="ADDs per side (200)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    if os.environ.get("CNI_FLANNEL_BENCH") != "inside":
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--net", "--mount", "--propagation", "private"]
        os.environ["CNI_FLANNEL_BENCH"] = "inside"
        os.execvp(command[0], [*command, sys.executable, "-m", "bench.bench", *sys.argv[1:]])
    make_node()
    rounds = max(5, options.rounds // 10 if options.quick else options.rounds)
    found = figures(rounds, lambda text: print(f"bench: {text}", file=sys.stderr))
    if options.json:
        print(json.dumps([figure.as_dict() for figure in found], indent=2))
    else:
        print_table(found)
    sys.exit(any(not figure.holds for figure in found))


if __name__ == "__main__":
    main()

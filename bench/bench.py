"""The pair against Debian's Go plugins, side by side in one run. Run by `./build.sh bench`.

Every figure compares `flannel`, frozen (one process) and behind a launcher in resident mode, with
Go's `bridge` -> `host-local` (two), which gets the conf that flannel would give it. The sides take
turns, so that whatever else the machine does falls on all; figures are medians, and what counts
are the ratios. Everything happens in private network and mount namespaces.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import Counter
from typing import TYPE_CHECKING

from bench.call import Call, peak_memory
from bench.node import FROZEN, PARALLEL, PEER, PLUGINS, RESIDENT, fill, make_node
from bench.report import Figure, Limits, print_table
from conformance.command import run_command
from conformance.words import Words, positive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.node import Side

LEASES = (0, 1_000, 20_000)
Values = dict[str, list[float]]  # side -> what was measured

LIMITS = {
    "ADD": {"frozen": Limits(2.0, 1.0), "resident": Limits(0.5, 0.3)},
    "DEL": {"frozen": Limits(1.3, 1.0), "resident": Limits(1.05, 0.9)},
    "ADDs": {
        "frozen": Limits(0.6, 1.5, more=True),
        "resident": Limits(2.5, 4.0, more=True),
    },
    "DELs": {"resident": Limits(1.5, 5.0, more=True)},
    "CPU": {"frozen": Limits(2.0, 0.7), "resident": Limits(3.0, 2.0, absolute=True)},
    "peak": {"frozen": Limits(18.0, 12.0, absolute=True)},
    "folder": {"frozen": Limits(16.0, 10.0, absolute=True)},
    "growth": {side: Limits(1.5, 1.1, absolute=True) for side in ("frozen", "resident")},
}


class Bench:
    """The sides that there are, and how many calls each has made."""

    def __init__(self) -> None:
        self.sides = [FROZEN, RESIDENT, PEER]
        self.calls: Counter[str] = Counter()

    def turns(self, rounds: int) -> Iterator[Side]:
        """The sides in turn, another first in each round."""
        for number in range(rounds):
            first = number % len(self.sides)
            yield from (*self.sides[first:], *self.sides[:first])

    def values(self) -> Values:
        """Nothing measured yet."""
        return {side.name: [] for side in self.sides}

    def run(self, side: Side, call: Call) -> tuple[float, float]:
        """Run one call: its wall clock and processor time, milliseconds."""
        self.calls[side.name] += 1
        return call.run()

    def run_all(self, side: Side, command: str) -> float:
        """Run a verb for all pods at once: calls a second."""
        calls = [side.call(command, f"pod{pod}") for pod in range(PARALLEL)]
        self.calls[side.name] += PARALLEL
        return PARALLEL / Call.run_all(calls) * 1000

    # --------------------------------------------------------------------------------- measurements

    def one_at_a_time(self, rounds: int) -> dict[str, Values]:
        """ADD and DEL of one pod: figure -> side -> milliseconds."""
        found = {figure: self.values() for figure in ("ADD", "DEL", "CPU")}
        for side in self.turns(rounds):
            before = side.cpu_s()
            wall, cpu = self.run(side, side.call("ADD", "pod0"))
            deletion = side.call("DEL", "pod0")
            cpu += (side.cpu_s() - before) * 1000
            found["ADD"][side.name].append(wall)
            found["CPU"][side.name].append(cpu)
            found["DEL"][side.name].append(self.run(side, deletion)[0])
        return found

    def in_parallel(self, rounds: int) -> dict[str, Values]:
        """Calls a second when PARALLEL pods start, then end, at once."""
        found = {figure: self.values() for figure in ("ADDs", "DELs")}
        for side in self.turns(rounds):
            found["ADDs"][side.name].append(self.run_all(side, "ADD"))
            found["DELs"][side.name].append(self.run_all(side, "DEL"))
        return found

    def ipam(self, rounds: int) -> dict[int, Values]:
        """ADD + DEL of host-local alone: leases on the disk -> side -> milliseconds."""
        found = {leases: self.values() for leases in LEASES}
        for side in self.sides:
            for leases in LEASES:
                fill(side, leases)
                self._ipam_pair(side, leases)
        for side in self.turns(rounds):
            for leases in LEASES:
                found[leases][side.name].append(self._ipam_pair(side, leases))
        return found

    def _ipam_pair(self, side: Side, leases: int) -> float:
        pair = (side.ipam_call("ADD", leases), side.ipam_call("DEL", leases))
        return sum(self.run(side, call)[0] for call in pair)

    def peaks(self) -> dict[str, float]:
        """Peak resident memory of one ADD, MiB: the larger process of each side."""
        found = {}
        for side in self.sides:
            peak = peak_memory(side.call("ADD", "pod0"))
            self.run(side, side.call("DEL", "pod0"))
            found[side.name] = max(peak, peak_memory(side.ipam_call("ADD", 0)))
            self.run(side, side.ipam_call("DEL", 0))
            self.calls[side.name] += 2
        return found


def folder_megabytes() -> float:
    """The launchers, and the folder that they start."""
    return sum(file.lstat().st_size for file in PLUGINS.rglob("*") if file.is_file()) / 1e6


def medians(values: Values) -> dict[str, float]:
    """Side -> median."""
    return {side: statistics.median(several) for side, several in values.items()}


# ------------------------------------------------------------------------------------------- report


def figures(bench: Bench, rounds: int, note: Callable[[str], None]) -> list[Figure]:
    """Measure everything; bars and goals are those of the project's design."""
    there = {side.name for side in bench.sides}

    def figure(name: str, unit: str, values: dict[str, float], limits: str = "") -> Figure:
        held = {side: one for side, one in LIMITS.get(limits, {}).items() if side in there}
        return Figure(name, unit, values, held)

    note(f"{rounds} x ADD and DEL")
    single = bench.one_at_a_time(rounds)
    note(f"{PARALLEL} in parallel")
    parallel = bench.in_parallel(max(3, rounds // 20))
    note("host-local with 0, 1,000 and 20,000 leases")
    leases = {count: medians(values) for count, values in bench.ipam(max(5, rounds // 4)).items()}
    growth = {side: leases[LEASES[-1]][side] / leases[0][side] for side in there}
    found = [
        figure("ADD", "ms", medians(single["ADD"]), "ADD"),
        figure("DEL", "ms", medians(single["DEL"]), "DEL"),
        figure(f"ADD, {PARALLEL} in parallel", "/s", medians(parallel["ADDs"]), "ADDs"),
        figure(f"DEL, {PARALLEL} in parallel", "/s", medians(parallel["DELs"]), "DELs"),
        figure("CPU per ADD", "ms", medians(single["CPU"]), "CPU"),
        figure("peak memory of a call", "MiB", bench.peaks(), "peak"),
        figure("size of the folder", "MB", {"frozen": folder_megabytes()}, "folder"),
        figure("memory of the resident process", "MiB", {RESIDENT.name: RESIDENT.memory_mib()}),
    ]
    found += [figure(f"IPAM ADD+DEL, {count:,} leases", "ms", leases[count]) for count in LEASES]
    return [*found, figure("IPAM, 20,000 leases / none", "x", growth, "growth")]


def main() -> int:
    parser = Words(prog="./build.sh bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=positive, default=200, metavar="N", help="ADDs per side")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    if os.environ.get("CNI_FLANNEL_BENCH") != "inside":
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--net", "--mount", "--propagation", "private"]
        os.environ["CNI_FLANNEL_BENCH"] = "inside"
        os.execvp(command[0], [*command, sys.executable, "-m", "bench.bench", *sys.argv[1:]])
    make_node()
    bench = Bench()
    RESIDENT.start()
    rounds = max(5, options.rounds // 10 if options.quick else options.rounds)
    found = figures(bench, rounds, lambda text: print(f"bench: {text}", file=sys.stderr))
    unserved = bench.calls[RESIDENT.name] - RESIDENT.stop()
    if options.json:
        print(json.dumps([figure.as_dict() for figure in found], indent=2))
    else:
        print_table(found, [side.name for side in bench.sides])
    if unserved:
        text = "calls were done by launchers themselves: their side tells nothing"
        print(f"{unserved} {text}", file=sys.stderr)
    return int(unserved > 0 or any("MISSED" in figure.verdicts().values() for figure in found))


if __name__ == "__main__":
    run_command("bench", main)

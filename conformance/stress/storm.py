"""Many attachments at once: ADD, CHECK, DEL, GC, STATUS mixed, two networks, bridges that vanish.

64 workers carry 200 attachments through their lives. Now and then somebody deletes a bridge. At
the end, and at every step: no address twice, one MAC for each life of a bridge, no error that the
call's circumstances do not explain, nothing left.

As the specification promises a plugin, GC runs with the complete list of valid attachments and
while no ADD or DEL is in flight (section 4, "GC"). A call that overlaps the deletion of its bridge
may fail, with a code of the table; its repetition must succeed.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from conformance.command import threads
from conformance.stress.figure import Figure, options
from conformance.stress.verdict import brief, complaints
from conformance.words import duration, positive
from conformance.world import World

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from conformance.world import Outcome

NETWORKS = {"blue": ("cni0", "10.244.1.1/24"), "green": ("cni1", "10.244.2.1/24")}
_ATTEMPTS = 5  # of an ADD or DEL that a vanishing bridge disturbs


class Gate:
    """Many pass at once, or one alone."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._free:
                self._inside -= 1
                self._free.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: not self._alone)
            self._alone = True
            self._free.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._free:
                self._alone = False
                self._free.notify_all()


class Bridge:
    """The lives of one bridge: which one it is in, and the MACs that results told of each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0  # odd while a deletion is under way
        self.macs: dict[int, set[str]] = {}


class Storm:
    """The state that the workers share."""

    def __init__(self, world: World, figure: Figure, seed: int) -> None:
        self.world = world
        self.figure = figure
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.gate = Gate()
        self.bridges = {name: Bridge(bridge) for name, (bridge, _) in NETWORKS.items()}
        self.addresses: dict[tuple[str, str], str] = {}
        self.valid: set[tuple[str, str]] = set()
        for name, (_, subnet) in NETWORKS.items():
            world.write_subnet_env(f"/run/flannel/{name}.env", subnet=subnet)

    def conf(self, network: str, **changes: Any) -> dict[str, Any]:
        delegate = {"isDefaultGateway": True, "ipMasq": False, "bridge": NETWORKS[network][0]}
        return {
            "cniVersion": "1.1.0",
            "name": network,
            "type": "flannel",
            "subnetFile": f"/run/flannel/{network}.env",
            "delegate": delegate,
            **changes,
        }

    def call(self, command: str, network: str, cid: str, **changes: Any) -> Outcome:
        netns = None if command in {"GC", "STATUS"} else f"/run/netns/{cid}"
        conf = self.conf(network, **changes)
        done = self.world.cni(command, conf, container_id=cid, netns=netns, timeout=120)
        with self.lock:
            self.figure.count(f"{command}s")
            for problem in complaints(done, document=command == "ADD"):
                self.figure.fail(f"{command} {network} {cid}: {problem}")
        return done

    def fail(self, text: str) -> None:
        with self.lock:
            self.figure.fail(text)

    # ----------------------------------------------------------------------------- one attachment

    def live(self, number: int) -> None:
        """Carry one attachment through its life."""
        network = ("blue", "green")[number % 2]
        cid = f"pod{number}"
        with self.lock:
            checks, asks = self.chance.randrange(3), self.chance.randrange(3) == 0
        self.world.add_pod(cid)
        result, life = self.add(network, cid)
        if result is None:
            return
        if asks:
            self.status(network, cid)
        for _ in range(checks):
            self.check(network, cid, result, life)
        self.delete(network, cid, result)
        self.world.del_pod(cid)

    def add(self, network: str, cid: str) -> tuple[dict[str, Any] | None, int]:
        """ADD until it succeeds; the result, and the life of the bridge that it is part of."""
        bridge = self.bridges[network]
        done = None
        for _ in range(_ATTEMPTS):
            before = bridge.life
            with self.gate.shared():
                done = self.call("ADD", network, cid)
                after = bridge.life
                if done.status == 0:
                    self._note(network, cid, done.result, before, after)
                    return done.result, after if before == after else -1
            if before == after and before % 2 == 0:
                self.fail(f"ADD {network} {cid}: {brief(done)}")
                return None, 0
            with self.lock:
                self.figure.count("disturbed and repeated")
        self.fail(f"ADD {network} {cid} was disturbed {_ATTEMPTS} times, at last {done}")
        return None, 0

    def _note(
        self, network: str, cid: str, result: dict[str, Any], before: int, after: int
    ) -> None:
        bridge = self.bridges[network]
        with self.lock:
            for ip in result["ips"]:
                holder = self.addresses.setdefault((network, ip["address"]), cid)
                if holder != cid:
                    self.figure.fail(f"{ip['address']} of {network}: {holder} and {cid}")
            if before == after and before % 2 == 0:
                mac = next(x["mac"] for x in result["interfaces"] if x["name"] == bridge.name)
                bridge.macs.setdefault(before, set()).add(mac)
            self.valid.add((network, cid))

    def check(self, network: str, cid: str, result: dict[str, Any], life: int) -> None:
        done = self.call("CHECK", network, cid, prevResult=result)
        if done.status != 0 and self.bridges[network].life == life:
            self.fail(f"CHECK {network} {cid}: {brief(done)}")

    def status(self, network: str, cid: str) -> None:
        before = self.bridges[network].life
        done = self.call("STATUS", network, cid)
        if done.status != 0 and self.bridges[network].life == before:
            self.fail(f"STATUS {network}: {brief(done)}")

    def delete(self, network: str, cid: str, result: dict[str, Any]) -> None:
        with self.gate.shared():
            with self.lock:
                self.valid.discard((network, cid))
                for ip in result["ips"]:
                    self.addresses.pop((network, ip["address"]), None)
            done = None
            for _ in range(_ATTEMPTS):
                before = self.bridges[network].life
                done = self.call("DEL", network, cid, prevResult=result)
                if done.status == 0:
                    return
                if self.bridges[network].life == before:
                    break
        self.fail(f"DEL {network} {cid}: {done}")

    # ------------------------------------------------------------------------- what disturbs them

    def disturb(self, end: threading.Event, pause_s: float) -> None:
        """Delete bridges and collect garbage in turn, until the end."""
        for turn in range(1_000_000):
            if end.wait(pause_s):
                return
            network = ("blue", "green")[turn // 2 % 2]
            if turn % 2:
                self.collect(network)
            else:
                self.delete_bridge(network)

    def delete_bridge(self, network: str) -> None:
        bridge = self.bridges[network]
        bridge.life += 1
        gone = self.world.run(["ip", "link", "del", bridge.name], check=False).status == 0
        bridge.life += 1
        with self.lock:
            self.figure.count("bridges deleted", int(gone))

    def collect(self, network: str) -> None:
        with self.gate.alone():
            valid = [
                {"containerID": cid, "ifname": "eth0"}
                for name, cid in self.valid
                if name == network
            ]
            done = self.call("GC", network, "gc", **{"cni.dev/valid-attachments": valid})
            if done.status != 0:
                self.fail(f"GC {network}: {brief(done)}")

    def conclude(self) -> None:
        """Look at what only the whole shows."""
        for network, bridge in self.bridges.items():
            for life, macs in bridge.macs.items():
                if len(macs) != 1:
                    self.fail(f"life {life} of {bridge.name} ({network}) had MACs {sorted(macs)}")
        for line in leftovers(self.world.state()):
            self.fail(line)


def leftovers(state: dict[str, Any]) -> list[str]:
    """Tell what is there beyond bridges and the files that a network keeps."""
    bridges = {bridge for bridge, _ in NETWORKS.values()}
    found = [
        f"left: link {name}" for name in state["host"]["links"] if name not in {"lo", *bridges}
    ]
    found += [f"left: {one}" for one in state["host"]["neighbours"] if one["state"] != "failed"]
    found += [f"left: process {line}" for line in state["processes"]]
    found += [
        f"left: file {path}"
        for path in state["files"]
        if path.startswith("/var/lib") and not path.rpartition("/")[2].startswith(("lock", "last_"))
    ]
    return found


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("storm", __doc__ or "")
    parser.add_argument("--attachments", type=positive, default=200)
    parser.add_argument("--workers", type=positive, default=64)
    parser.add_argument("--pause", type=duration, default=0.7, help="seconds between disturbances")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    verbs = tuple(f"{verb}s" for verb in ("ADD", "CHECK", "DEL", "GC", "STATUS"))
    names = ("attachments", *verbs, "bridges deleted", "disturbed and repeated")
    figure = Figure("storm", names, as_json=args.json)
    with World(args.bin_dir) as world:
        storm = Storm(world, figure, args.seed)
        end = threading.Event()
        disturber = threading.Thread(target=storm.disturb, args=(end, args.pause), daemon=True)
        disturber.start()
        with threads(args.workers) as pool:
            for _ in pool.map(storm.live, range(args.attachments)):
                figure.count("attachments")
                figure.progress(f"{figure.counts['attachments']} of {args.attachments}")
        end.set()
        disturber.join()
        storm.conclude()
        figure.account(world)
    if figure.failures:
        figure.progress(f"--seed {args.seed}")
    return figure.finish()

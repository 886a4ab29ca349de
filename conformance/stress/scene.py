"""One network in a private world, an attachment to be troubled, and what is left of it afterwards.

`left` compares with the world after an undisturbed ADD and DEL: a bridge, a lock file, the chain
that all pods share may stay there; a trait that is not in it belongs to the attachment. With a
neighbour, a second attachment that lives on, traits that are missing count as well: then somebody
else's have been taken away.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Self

from conformance.stress.verdict import brief
from conformance.world import World, WorldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from conformance.world import Outcome

POD, CONTAINER, NEIGHBOUR = "pod", "cid-troubled", "cid-neighbour"
DEADLINE_S = 60.0
KINDS = ("v4", "v4-neighbour", "dual-nftables", "dual-iptables")
DATA = "/var/lib/cni"

_COOL = f"""
ip link del cni0 2>/dev/null
ip -n {POD} link del eth0 2>/dev/null
nft flush ruleset 2>/dev/null
rm -rf {DATA}
mkdir {DATA}
"""


def network(kind: str, plugin: str) -> dict[str, Any]:
    """Return the network configuration of one kind, for `flannel` or for `bridge`."""
    delegate: dict[str, Any] = {
        "hairpinMode": True,
        "isDefaultGateway": True,
        "ipMasq": kind.startswith("dual"),
    }
    if kind.startswith("dual"):
        delegate["ipMasqBackend"] = kind.removeprefix("dual-")
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "cbr0", "type": plugin}
    if plugin == "flannel":
        return conf | {"delegate": delegate}
    subnets = ["10.244.1.0/24", "fd00:f1:0:1::/64"][: 2 if kind.startswith("dual") else 1]
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}] for subnet in subnets]}
    return conf | delegate | {"bridge": "cni0", "isGateway": True, "ipam": ipam}


class Scene:
    """A world with one network and a pod; a context manager.

    A call that takes longer than `deadline_s` is killed: subprocess.TimeoutExpired.
    """

    deadline_s = DEADLINE_S

    def __init__(self, bin_dir: Path, kind: str, plugin: str = "flannel") -> None:
        self.kind = kind
        self.plugin = plugin
        self.conf = network(kind, plugin)
        self.world = World(bin_dir)
        self.world.add_pod(POD)
        self.world.add_pod("neighbour")
        self.has_neighbour = kind.endswith("neighbour")
        self.normal = frozenset[str]()
        self.restart()

    def restart(self) -> None:
        """Make everything as new; remember how the world looks after an undisturbed ADD and DEL."""
        dual = {"ipv6_network": "fd00:f1::/56", "ipv6_subnet": "fd00:f1:0:1::1/64"}
        self.world.write_subnet_env(**(dual if self.kind.startswith("dual") else {}))
        self.cool()
        if self.has_neighbour:
            self._must("ADD", "neighbour", NEIGHBOUR)
        self._must("ADD")
        self._must("DEL")
        self.normal = self.traits()

    def _must(self, *call: str) -> None:
        """Make a call that is undisturbed: a plugin that fails it cannot be tried further."""
        done = self.call(*call)
        if done.status != 0:
            raise WorldError(f"{self.plugin}, undisturbed {call[0]}: {brief(done)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def cool(self) -> None:
        """Take away the bridge, every lease, rule and state file: a node that has just started."""
        self.world.run(["ip", "-n", "neighbour", "link", "del", "eth0"], check=False)
        self.world.run(["sh", "-c", _COOL], check=False)

    def begin(self) -> None:
        """Get ready for the next attachment; with a neighbour the network stays as it is."""
        if not self.has_neighbour:
            self.cool()

    def call(
        self,
        command: str,
        pod: str = POD,
        container_id: str = CONTAINER,
        *,
        prefix: Sequence[str] = (),
        **changes: Any,
    ) -> Outcome:
        """Call the plugin; `prefix` is a program that runs it, `changes` go into the conf."""
        environ = self.world.environment(command, container_id, "eth0", f"/run/netns/{pod}")
        return self.world.run(
            [*prefix, self.world.program(self.plugin)],
            json.dumps(self.conf | changes),
            environ,
            check=False,
            timeout=self.deadline_s,
        )

    def bounded(self, trial: Callable[[], Iterable[str]]) -> list[str]:
        """Give the problems of a trial; no end is one more. After any, the scene recovers."""
        problems: list[str] = []
        try:
            for problem in trial():
                problems.append(problem)  # noqa: PERF402 - those before a time-out count
        except subprocess.TimeoutExpired as error:
            problems.append(f"no end after {error.timeout:g} s")
        if problems:
            self.recover()
        return problems

    def recover(self) -> None:
        """Make everything as new after something went wrong."""
        self.restart()

    def left(self) -> list[str]:
        """Tell what the attachment has left, and what was taken away with it."""
        now = self.traits()
        lost = sorted(self.normal - now) if self.has_neighbour else []
        return [f"left: {one}" for one in sorted(now - self.normal)] + [
            f"lost: {one}" for one in lost
        ]

    def traits(self) -> frozenset[str]:
        """Everything of the world, each as a line; without what changes by itself."""
        state = self.world.state()
        found = {*_space("host", state["host"]), *(f"rule {line}" for line in state["rules"])}
        for pod, space in state["pods"].items():
            found.update(_space(pod, space))
        found.update(f"process {line}" for line in state["processes"])
        # The lock of iptables is made by whoever runs it first, and stays.
        found.update(f"file {path}" for path in state["files"] if path != "/run/xtables.lock")
        found.update(f"symlink {path}" for path in self._symlinks())
        return frozenset(found)

    def _symlinks(self) -> Iterator[str]:
        top = str(self.world.path(DATA))
        for folder, folders, files in os.walk(top):
            for name in [*folders, *files]:
                if os.path.islink(f"{folder}/{name}"):
                    yield f"{DATA}{folder.removeprefix(top)}/{name}"


def _space(name: str, space: dict[str, Any]) -> Iterator[str]:
    """Lines of one network namespace."""
    for link, properties in space["links"].items():
        owner = properties.get("master"), properties.get("alias")
        yield f"{name} link {link} {owner}"
    for link, addresses in space["addresses"].items():
        for address in addresses:
            yield f"{name} address {link} {address}"
    for route in space["routes"]:
        yield f"{name} route {route['dst']} {route.get('gw')} {route.get('dev')} {route['table']}"
    for entry in space["neighbours"]:
        # A link-local one that a pod has told of itself is the kernel's own to forget.
        learned = {"reachable", "stale"} if not entry["dst"].startswith("fe80:") else set()
        if entry["state"] in {"permanent", *learned}:
            yield f"{name} neighbour {entry['dst']} {entry['dev']}"

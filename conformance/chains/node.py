"""A node with chained plugins: the conflists, the world around them, and what is left in it.

The world has a third namespace, `outside`, on a link of its own: another machine as the node sees
it. Two pods live on the node. The conflists are kube-flannel's, as it ships it, and one with
all that the distribution offers behind the plugin under test.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from conformance.conflist import Attachment, Conflist, UnsupportedError, number
from conformance.runtime import Runtime
from conformance.world import World, difference

if TYPE_CHECKING:
    from collections.abc import Sequence

NODE, OUTSIDE = ("192.0.2.1", "fd00:ff::1"), ("192.0.2.2", "fd00:ff::2")
PODS = ("one", "two")
HOST_PORT, POD_PORT = 8080, 80
MAC = "02:00:5e:10:00:01"
LIMIT, BURST = 16_000_000, 1_600_000  # bit/s and bits
SOMAXCONN = "517"
SHIMS, ARMED = "/run/chain/bin", "/run/chain/armed"

NETWORK = f"""
set -e
ip link add up0 type veth peer name eth0 netns outside
ip address add {NODE[0]}/24 dev up0
ip address add {NODE[1]}/64 dev up0 nodad
ip link set up0 up
ip -n outside address add {OUTSIDE[0]}/24 dev eth0
ip -n outside address add {OUTSIDE[1]}/64 dev eth0 nodad
ip -n outside link set eth0 up
ip -n outside route add 10.244.0.0/16 via {NODE[0]}
ip -n outside -6 route add fd00:f1::/56 via {NODE[1]}
"""
DUAL = {"ipv6_network": "fd00:f1::/56", "ipv6_subnet": "fd00:f1:0:1::1/64"}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
CHAINED: tuple[dict[str, Any], ...] = (
    PORTMAP,
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    {
        "type": "tuning",
        "capabilities": {"mac": True},
        "sysctl": {"net.core.somaxconn": SOMAXCONN},
    },
    {"type": "firewall", "backend": "iptables"},
)


def first_plugin(plugin: str, *, dual: bool) -> dict[str, Any]:
    """Return the conf of the plugin under test, as kube-flannel has it, or for a bare `bridge`."""
    delegate = {"hairpinMode": True, "isDefaultGateway": True}
    if plugin == "flannel":
        return {"type": plugin, "delegate": delegate}
    ranges = [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:f1:0:1::/64"}]]
    ipam = {"type": "host-local", "ranges": ranges[: 2 if dual else 1]}
    return {"type": plugin, "bridge": "cni0", "mtu": 1450, **delegate, "ipam": ipam}


def conflist(
    version: str, plugin: str, without: Sequence[str] = (), *, dual: bool = True
) -> Conflist:
    """Return kube-flannel's list for 0.3.1, else the full one; `without` plugins that cannot be."""
    chained = [PORTMAP] if version == "0.3.1" else [*CHAINED]
    plugins = [
        first_plugin(plugin, dual=dual),
        *(one for one in chained if one["type"] not in without),
    ]
    document = {"name": "cbr0", "cniVersion": version, "plugins": plugins}
    return Conflist.parse(json.dumps(document).encode())


def missing_in_kernel() -> dict[str, str]:
    """Plugin -> what this kernel lacks for it."""
    script = """
    ip link add ifb9 type ifb || { echo ifb; exit; }
    tc qdisc add dev ifb9 root tbf rate 8mbit burst 32k latency 25ms || { echo sch_tbf; exit; }
    tc qdisc add dev ifb9 ingress || echo sch_ingress
    """
    with World("/nonexistent") as world:
        lacking = world.run(["sh", "-c", script]).stdout.strip()
    return {"bandwidth": lacking} if lacking else {}


class Node:
    """A world, its outside, a conflist and runtimes for it; a context manager.

    `runtime` calls the plugins as they are, behind shims only where they do not know the list's
    version; `shimmed` calls all of them behind shims, so that one can be made to fail.
    """

    def __init__(self, bin_dir: Path, conflist: Conflist, *, dual: bool = True) -> None:
        self.conflist = conflist
        self.dual = dual
        self.world = World(bin_dir)
        try:
            self.world.write_subnet_env(**(DUAL if dual else {}))
            self.netns = {pod: self.world.add_pod(pod) for pod in (*PODS, "outside")}
            self.world.run(["sh", "-c", NETWORK])
            self.plugins = [str(plugin["type"]) for plugin in conflist.plugins]
            self.runtime = Runtime(self.world, self.world.cni_path)
            self.translated = self._write_shims()
            self.shimmed = Runtime(self.world, f"{SHIMS}:{self.world.cni_path}")
            if self.translated:
                self.runtime = self.shimmed
        except BaseException:
            self.world.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def _write_shims(self) -> list[str]:
        """Put a shim before each plugin; the plugins whose version it has to translate."""
        source = Path(__file__).with_name("shim.py").read_text()
        self.world.write("/run/chain/shim.py", source)
        self.world.path(ARMED).mkdir()
        translated = []
        for plugin in self.plugins:
            real = self.runtime.find(plugin)
            newest = max(self.runtime.versions(plugin), key=number)
            if number(newest) < number("1.0.0"):
                raise UnsupportedError(f"{real} supports {newest} at most")
            if number(newest) < number(self.conflist.version):
                translated.append(plugin)
            cap = newest if plugin in translated else "-"
            call = f"{sys.executable} -I -S /run/chain/shim.py {real} {cap} {ARMED}"
            self.world.write(f"{SHIMS}/{plugin}", f"#!/bin/sh\nexec {call}\n")
            self.world.path(f"{SHIMS}/{plugin}").chmod(0o755)
        return translated

    def arm(self, plugin: str, command: str, when: str) -> None:
        """Let the next such call of a plugin fail: `before` or `after` it has done its work."""
        self.world.write(f"{ARMED}/{plugin}.{command}", when)

    def attachment(self, pod: str, number: int = 0, *, plain: bool = False) -> Attachment:
        """Describe a pod's attachment, as a runtime does; `plain` without any capability."""
        args = (
            ("K8S_POD_NAME", pod),
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", "default"),
            ("K8S_POD_INFRA_CONTAINER_ID", f"cid-{pod}-{number}"),
        )
        port = {"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"}
        limits = {"ingressRate": LIMIT, "ingressBurst": BURST}
        limits |= {"egressRate": LIMIT, "egressBurst": BURST}
        given = {"portMappings": [port], "bandwidth": limits, "mac": MAC}
        capabilities = {} if plain else given
        return Attachment(f"cid-{pod}-{number}", self.netns[pod], "eth0", args, capabilities)

    def space(self, pod: str) -> Path:
        """Return a pod's network namespace as a path for this process; "" is the node's own."""
        return (
            self.world.path(self.netns[pod])
            if pod
            else Path(f"/proc/{self.world.holder.pid}/ns/net")
        )

    def state(self) -> dict[str, Any]:
        """Return the world's state without what changes by itself."""
        state = self.world.state()
        for space in (state["host"], *state["pods"].values()):
            space["neighbours"] = []
            for link in space["links"].values():
                link.pop("index")
        for name in state["files"]:
            if "/last_reserved_ip." in name:
                state["files"][name] = ""
        return state

    def left(self, normal: dict[str, Any]) -> list[str]:
        """Tell what is different from how it was."""
        return difference(normal, self.state())

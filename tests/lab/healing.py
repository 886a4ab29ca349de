"""What can happen to a node's data plane, and how long it takes until all is as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.lab.plane import plane, rules
from tests.lab.space import LabError, until
from tests.lab.underlay import GATEWAY, GATEWAY6

if TYPE_CHECKING:
    from tests.lab.node import Node

UDP = ("udp",)


class Disturbance(NamedTuple):
    """A shell script for a node; what it takes away comes back, or the daemon does not heal."""

    name: str
    script: str
    backends: tuple[str, ...] = ("vxlan",)
    is_damage: bool = True  # or else the kernel keeps all by itself


# What takes an interface down and up gives it back what the kernel took: addresses, default route.
_UPLINK = f"""
ip link set eth0 down
ip link set eth0 up
ip address replace "$(cat /run/address6)"/64 dev eth0 nodad
ip route replace default via {GATEWAY}
ip route replace default via {GATEWAY6}
"""

_FORWARDER = """
mine=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    if [ "$(readlink $process/ns/net)" = "$mine" ] && grep -qz '^for[w]ard$' $process/cmdline; then
        kill -KILL ${process#/proc/}
        killed=yes
    fi
done
[ "$killed" ]
"""
_ROUTES_OF_PEERS = """
ip route show proto 244 | while read destination rest; do ip route delete $destination; done
ip -6 route show proto 244 | while read destination rest; do ip -6 route delete $destination; done
"""

DISTURBANCES = (
    Disturbance("flannel.1 down and up", "ip link set flannel.1 down; ip link set flannel.1 up"),
    Disturbance("flannel.1 down", "ip link set flannel.1 down"),
    Disturbance("flannel.1 deleted", "ip link delete flannel.1"),
    Disturbance("flannel.1 without its address", "ip address flush dev flannel.1"),
    Disturbance("flannel.1 with another MTU", "ip link set flannel.1 mtu 1000"),
    Disturbance("FDB flushed", "bridge fdb flush dev flannel.1"),
    Disturbance("neighbours flushed", "ip neighbour flush dev flannel.1 nud permanent"),
    Disturbance("routes flushed", "ip route flush dev flannel.1"),
    Disturbance("routes deleted one by one", _ROUTES_OF_PEERS, ("vxlan", "host-gw", "udp")),
    Disturbance("uplink down and up", _UPLINK, ("host-gw",)),
    Disturbance("uplink down and up", _UPLINK, ("vxlan", "udp"), is_damage=False),
    Disturbance("flannel0 down and up", "ip link set flannel0 down; ip link set flannel0 up", UDP),
    Disturbance("flannel0 deleted", "ip link delete flannel0", UDP),
    Disturbance("the forwarder killed", _FORWARDER, UDP, is_damage=False),
)


def disturbances(backend: str) -> list[Disturbance]:
    """Give those that concern a backend."""
    return [each for each in DISTURBANCES if backend in each.backends]


def heal(node: Node, disturbance: Disturbance) -> float:
    """Disturb a node; the seconds until its kernel is as before. LabError says what is missing."""
    before, repaired = plane(node), node.metric("flannel_drift_repaired_total")
    node.path("/run/address6").write_text(node.address6)
    node.sh(disturbance.script)
    try:
        seconds = until(disturbance.name, lambda: plane(node) == before)
    except LabError as error:
        now = plane(node)
        raise LabError(
            f"{error}: missing {sorted(before - now)}, new {sorted(now - before)}\n{node.log()}"
        ) from None
    if disturbance.is_damage:
        until("a repair counted", lambda: node.metric("flannel_drift_repaired_total") > repaired)
    node.await_ready()
    return seconds


def heal_rules(node: Node) -> float:
    """Take all rules of the packet filter away; the seconds until the daemon's are back."""
    before = rules(node)
    node.sh("nft flush ruleset")
    return until("rules are back", lambda: rules(node) == before)

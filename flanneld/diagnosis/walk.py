"""From one pod's address to another, step by step, to the first that is broken. Pure.

The order is the packet's: out of the pod, through this node's routes and rules, onto the tunnel or
the link, over the underlay. What happens on the other node is seen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flanneld.backend.vxlan import OVERHEAD
from flanneld.diagnosis.facts import NUD_FAILED, holder, public_ip
from flanneld.diagnosis.paths import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flanneld.diagnosis.facts import Facts, Taken
    from flanneld.diagnosis.paths import PeerPath


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was looked at, whether it is right, what was found, and what to do."""

    name: str
    is_ok: bool
    found: str
    remedy: str = ""


def walk(facts: Facts) -> Iterator[Step]:
    """Give the steps up to the first broken one, that one included."""
    for look in _steps(facts):
        step = look(facts)
        yield step
        if not step.is_ok:
            return


def _steps(facts: Facts) -> tuple[Callable[[Facts], Step], ...]:
    own, far = facts.view.state.lease, holder(facts.view, facts.target)
    start = (_networks, _source)
    if far is None:
        return (*start, _lease)
    if far is own:
        return (*start, _lease, _local_link, _local_target)
    return (
        *start,
        _local_link,
        _forwarding,
        _lease,
        _plan,
        _device,
        _route,
        _neighbour,
        _fdb,
        _underlay,
        _underlay_mtu,
        _next_hop,
        _rules,
        _daemon,
    )


def _networks(facts: Facts) -> Step:
    conf = facts.view.state.conf
    network = conf.network if facts.target.version == 4 else conf.network6
    for address in (facts.source, facts.target):
        if network is None or address not in network:
            return Step(
                "network",
                False,
                f"{address} is not in the network {network}",
                "give two addresses of pods; others are not this network's business",
            )
    return Step("network", True, f"both are in {network}")


def _source(facts: Facts) -> Step:
    lease = holder(facts.view, facts.source)
    if lease is facts.view.state.lease:
        return Step("source", True, f"{facts.source} is of this node's subnet")
    if lease is None:
        return Step(
            "source",
            False,
            f"no node has leased a subnet with {facts.source}",
            "a pod has this address from a lease that is gone: make the pod anew",
        )
    where = public_ip(lease, facts.source.version)
    return Step(
        "source",
        False,
        f"{facts.source} is of the node {where}, not of this one",
        f"run this command there; here: flanneld explain {facts.target} {facts.source}",
    )


def _daemon(facts: Facts) -> Step:
    pid = facts.view.state.pid
    if facts.view.running:
        return Step("daemon", True, f"flanneld runs (pid {pid})")
    return Step(
        "daemon",
        False,
        f"flanneld (pid {pid}) does not run: changes of other nodes go unnoticed",
        "start it, and read the end of its log",
    )


def _local_link(facts: Facts) -> Step:
    taken = facts.routes[facts.source]
    if taken.route is None or taken.link is None:
        return _unroutable("pod's link", facts.source, taken)
    own = facts.view.state.lease
    subnet = own.subnet if facts.source.version == 4 else own.subnet6
    if taken.route.gw is not None or (subnet and taken.route.dst.length < subnet.prefixlen):
        return Step(
            "pod's link",
            False,
            f"{facts.source} is on no link of pods: {taken.text}",
            "pods of this node are on its own bridge: is there one yet, and has it the address of"
            " subnet.env? A stale route may be in its way",
        )
    if not taken.link.is_up:
        return Step(
            "pod's link", False, f"{taken.link.name} is down", f"ip link set {taken.link.name} up"
        )
    return Step("pod's link", True, taken.text)


def _local_target(facts: Facts) -> Step:
    source, target = facts.routes[facts.source], facts.routes[facts.target]
    if target.route is None or target.link is None:
        return _unroutable("target's link", facts.target, target)
    if source.link is None or source.link.index != target.link.index:
        return Step(
            "target's link",
            False,
            f"{facts.target} is not on the same link: {target.text}",
            "both are of this node's subnet, so both should be on its bridge",
        )
    return Step("target's link", True, f"{facts.target} is on {target.link.name} as well")


def _forwarding(facts: Facts) -> Step:
    four = facts.target.version == 4
    name = "net.ipv4.ip_forward" if four else "net.ipv6.conf.all.forwarding"
    if facts.forwarding:
        return Step("forwarding", True, f"{name} is on")
    return Step("forwarding", False, f"{name} is off: nothing is forwarded", f"sysctl -w {name}=1")


def _lease(facts: Facts) -> Step:
    lease = holder(facts.view, facts.target)
    if lease is None:
        remedy = "its node has lost its lease, or has never had this one: look at flanneld there"
        if not facts.view.running:
            remedy = "flanneld does not run here: what it knew may be old; start it"
        return Step("lease", False, f"no node has leased a subnet with {facts.target}", remedy)
    if lease is facts.view.state.lease:
        return Step("lease", True, f"{facts.target} is of this node's subnet too")
    where = public_ip(lease, facts.target.version)
    kind = lease.attributes.backend_type or "no type"
    return Step("lease", True, f"{lease.key} is leased to {where} ({kind})")


def _plan(facts: Facts) -> Step:
    path = _path(facts)
    if path.link:
        return Step("plan", True, f"by way of {path.link}")
    return Step(
        "plan", False, path.problem, "mend what the other node publishes, or this configuration"
    )


def _device(facts: Facts) -> Step:
    path = _path(facts)
    link = facts.view.present.links.get(path.link)
    if link is None:
        return Step(
            "device", False, f"{path.link} does not exist", f"{_REPAIRS}; {_obstacles(facts)}"
        )
    if not link.is_up:
        return Step("device", False, f"{path.link} is down", f"ip link set {path.link} up")
    if path.device not in {"ok", "-"}:
        changes = [str(one) for one in facts.view.difference.devices]
        return Step("device", False, f"{path.link} is not as it should be: {changes}", _REPAIRS)
    return Step("device", True, f"{path.link} is up, MTU {link.mtu}")


def _route(facts: Facts) -> Step:
    path, taken = _path(facts), facts.routes[facts.target]
    if path.route != "ok":
        return Step("route", False, f"the route to {path.destination} is {path.route}", _REPAIRS)
    if taken.route is None:
        return _unroutable("route", facts.target, taken)
    if (
        taken.link is None
        or taken.link.name != path.link
        or str(taken.route.dst) != str(path.destination)
    ):
        return Step(
            "route",
            False,
            f"the kernel takes another route: {taken.text}",
            "a longer prefix, a better metric or a rule (ip rule) comes before the daemon's route:"
            " remove it",
        )
    return Step("route", True, taken.text)


def _neighbour(facts: Facts) -> Step:
    path = _path(facts)
    if path.neighbour in {"ok", "-"}:
        needed = path.neighbour == "ok"
        return Step("neighbour", True, "as published" if needed else "none is needed: no tunnel")
    return Step(
        "neighbour",
        False,
        f"the neighbour {path.subnet.network_address} on {path.link} is {path.neighbour}",
        _REPAIRS,
    )


def _fdb(facts: Facts) -> Step:
    path = _path(facts)
    if path.fdb in {"ok", "-"}:
        needed = path.fdb == "ok"
        return Step("fdb", True, f"leads to {path.public_ip}" if needed else "none is needed")
    return Step(
        "fdb", False, f"the FDB entry to {path.public_ip} on {path.link} is {path.fdb}", _REPAIRS
    )


def _underlay(facts: Facts) -> Step:
    path = _path(facts)
    if path.public_ip is None:
        return Step("underlay", False, f"{path.subnet}: no public address", "look at that node")
    taken = facts.routes[path.public_ip]
    if taken.route is None or taken.link is None:
        return _unroutable("underlay", path.public_ip, taken)
    if _is_tunnelled(path) and taken.link.name == path.link:
        return Step(
            "underlay",
            False,
            f"the way to {path.public_ip} leads into the tunnel: {taken.text}",
            "the network overlaps the nodes' own addresses: choose another Network",
        )
    if not taken.link.is_up:
        return Step(
            "underlay", False, f"{taken.link.name} is down", "look at the cable, the switch"
        )
    return Step("underlay", True, taken.text)


def _underlay_mtu(facts: Facts) -> Step:
    path = _path(facts)
    assert path.public_ip is not None  # noqa: S101 _underlay came before
    taken = facts.routes[path.public_ip]
    assert taken.link is not None and taken.route is not None  # noqa: S101, PT018
    least = min(taken.link.mtu, taken.route.mtu or taken.link.mtu)
    needed = path.mtu + (OVERHEAD[facts.target.version] if _is_tunnelled(path) else 0)
    if least < needed:
        return Step(
            "mtu",
            False,
            f"packets of {path.mtu} bytes become {needed}, the underlay carries {least}",
            f"give the backend an MTU of {least} in the network's configuration",
        )
    return Step("mtu", True, f"{path.mtu} bytes inside, {needed} outside, {least} are carried")


def _next_hop(facts: Facts) -> Step:
    if facts.hop_state is not None and facts.hop_state & NUD_FAILED:
        return Step(
            "next hop",
            False,
            "the underlay's next hop does not answer (ARP, ND)",
            "is the other node up, and is its public address the right one?",
        )
    return Step("next hop", True, "nothing is known against it")


def _rules(facts: Facts) -> Step:
    if facts.view.rules:
        return Step("rules", False, "; ".join(facts.view.rules), _REPAIRS)
    return Step("rules", True, "as they should be")


_REPAIRS = "the daemon repairs this within seconds: if it does not, its log says why"


def _obstacles(facts: Facts) -> str:
    said = facts.view.difference.problems or facts.view.state.problems
    return "; ".join(said) or "its log says why"


def _path(facts: Facts) -> PeerPath:
    return next(
        path
        for path in paths(facts.view)
        if path.subnet.version == facts.target.version and facts.target in path.subnet
    )


def _is_tunnelled(path: PeerPath) -> bool:
    return path.fdb != "-"


def _unroutable(name: str, address: object, taken: Taken) -> Step:
    why = taken.refusal or f"{taken.text} leads nowhere"
    return Step(name, False, f"the kernel has no route to {address}: {why}", "look at ip route")

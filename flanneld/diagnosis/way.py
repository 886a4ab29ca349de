"""The steps from this node to a peer: its path in the kernel, then the underlay. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend import udp, vxlan
from flanneld.diagnosis import passage
from flanneld.diagnosis.facts import NUD_FAILED
from flanneld.diagnosis.step import Step, unroutable

if TYPE_CHECKING:
    from flanneld.diagnosis.facts import Facts, Place
    from flanneld.diagnosis.leg import Leg
    from flanneld.diagnosis.node import View
    from flanneld.diagnosis.paths import PeerPath

_REPAIRS = "the daemon repairs this within seconds: if it does not, its log says why"


def plan(peer: Place) -> Step:
    """There is a path to the peer by what it publishes."""
    path = _path(peer)
    if path.link:
        return Step("plan", True, f"by way of {path.link}")
    return Step(
        "plan", False, path.problem, "mend what the other node publishes, or this configuration"
    )


def device(facts: Facts, peer: Place) -> Step:
    """The path's link is there, up, and as it should be."""
    path = _path(peer)
    link = facts.view.present.links.get(path.link)
    if link is None:
        return Step(
            "device",
            False,
            f"{path.link} does not exist",
            _remedy(facts, f"{path.link} ", f"{path.link}:"),
        )
    if path.device not in {"ok", "-"}:
        changes = "; ".join(str(one) for one in facts.view.difference.devices)
        found = "; ".join(facts.view.difference.problems) or changes
        return Step("device", False, f"{path.link} is not as it should be: {found}", _REPAIRS)
    if not link.is_up:
        return Step("device", False, f"{path.link} is down", f"ip link set {path.link} up")
    return Step("device", True, f"{path.link} is up, MTU {link.mtu}")


def route(facts: Facts, peer: Place, leg: Leg) -> Step:
    """The kernel has the route of the daemon, and takes it."""
    path = _path(peer)
    if path.route != "ok":
        found = f"the route to {path.destination} is {path.route}"
        return Step("route", False, found, _remedy(facts, f"{path.destination} "))
    return passage.routed(leg, path.link, str(path.destination))


def neighbour(peer: Place) -> Step:
    """The peer's base address has the MAC that it publishes."""
    path = _path(peer)
    if path.neighbour in {"ok", "-"}:
        needed = path.neighbour == "ok"
        return Step("neighbour", True, "as published" if needed else "none is needed: no tunnel")
    return Step(
        "neighbour",
        False,
        f"the neighbour {path.subnet.network_address} on {path.link} is {path.neighbour}",
        _REPAIRS,
    )


def fdb(peer: Place) -> Step:
    """That MAC leads to its public address."""
    path = _path(peer)
    if path.fdb in {"ok", "-"}:
        needed = path.fdb == "ok"
        return Step("fdb", True, f"leads to {path.public_ip}" if needed else "none is needed")
    return Step(
        "fdb", False, f"the FDB entry to {path.public_ip} on {path.link} is {path.fdb}", _REPAIRS
    )


def underlay(facts: Facts, peer: Place) -> Step:
    """The public address is reached, and not through the tunnel."""
    path, tunnel = _path(peer), facts.tunnel(peer)
    if tunnel is None:
        return Step("underlay", False, f"{path.subnet}: no public address", "look at that node")
    taken = tunnel.taken
    if taken.route is None or taken.link is None:
        return unroutable("underlay", path.public_ip, taken)
    if _overhead(path, facts) and taken.link.name == path.link:
        return passage.into_tunnel(path.public_ip, taken.text)
    if not taken.link.is_up:
        return Step(
            "underlay", False, f"{taken.link.name} is down", "look at the cable, the switch"
        )
    return Step("underlay", True, taken.text)


def underlay_mtu(facts: Facts, peer: Place) -> Step:
    """The largest packet of a pod is carried."""
    path, tunnel = _path(peer), facts.tunnel(peer)
    taken = tunnel.taken if tunnel is not None else None
    if taken is None or taken.link is None or taken.route is None:
        raise LookupError(f"no way to {path.public_ip}: the step underlay comes before")
    least = min(taken.link.mtu, taken.route.mtu or taken.link.mtu)
    needed = path.mtu + _overhead(path, facts)
    if least < needed:
        return Step(
            "mtu",
            False,
            f"packets of {path.mtu} bytes become {needed}, the underlay carries {least}",
            f"give the backend an MTU of {least} in the network's configuration",
        )
    return Step("mtu", True, f"{path.mtu} bytes inside, {needed} outside, {least} are carried")


def next_hop(facts: Facts, peer: Place) -> Step:
    """The next hop on the underlay answers."""
    tunnel = facts.tunnel(peer)
    if tunnel is not None and tunnel.hop_state is not None and tunnel.hop_state & NUD_FAILED:
        return Step(
            "next hop",
            False,
            "the underlay's next hop does not answer (ARP, neighbour discovery)",
            "is the other node up, and is its public address the right one?",
        )
    return Step("next hop", True, "nothing is known against it")


def rules(facts: Facts) -> Step:
    """The traffic rules are right."""
    if facts.view.rules:
        return Step("rules", False, "; ".join(facts.view.rules), _REPAIRS)
    return Step("rules", True, "as they should be")


def daemon(facts: Facts) -> Step:
    """The daemon runs, and answers."""
    pid = facts.view.state.pid
    if facts.view.answering:
        return Step("daemon", True, f"flanneld runs (pid {pid})")
    if facts.view.running:
        return Step("daemon", False, silent(facts.view), "kill -CONT it, or restart it")
    return Step(
        "daemon",
        False,
        f"flanneld (pid {pid}) does not run: changes of other nodes go unnoticed",
        "start it, and read the end of its log",
    )


def causes(facts: Facts) -> Step:
    """The daemon itself finds nothing in the way."""
    blocking = [str(cause) for cause in facts.view.causes if cause.blocks]
    if blocking:
        return Step("readiness", False, "; ".join(blocking), "flanneld status lists all of it")
    others = "; ".join(str(cause) for cause in facts.view.causes)
    return Step("readiness", True, others or "the daemon finds nothing wrong")


def silent(view: View) -> str:
    """Say that a daemon runs and does not answer."""
    return (
        f"flanneld (pid {view.state.pid}) runs but does not answer: it is stopped, frozen or hangs;"
        " changes of other nodes go unnoticed"
    )


def _remedy(facts: Facts, *about: str) -> str:
    """Give what the comparison or the daemon has said of it, else that it will be repaired."""
    causes = (cause.text for cause in facts.view.causes)
    said = (*facts.view.difference.problems, *causes)
    found = [text for text in dict.fromkeys(said) if any(word in text for word in about)]
    return "; ".join(found) or _REPAIRS


def _path(peer: Place) -> PeerPath:
    if peer.path is None:
        raise LookupError(f"{peer.address} is of no peer: near.lease comes before")
    return peer.path


def _overhead(path: PeerPath, facts: Facts) -> int:
    """Bytes around a pod's packet: of VXLAN, of the udp backend, or none."""
    if path.fdb != "-":
        return vxlan.OVERHEAD[path.subnet.version]
    return udp.OVERHEAD if facts.view.subject.is_tunnel(path.link) else 0

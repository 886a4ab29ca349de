"""What is in the way of a packet on a leg: steps.  Pure.

The order is the kernel's: the packet filters that a packet meets first, whether the node passes it
on, its route, and the filters behind that.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from flanneld.diagnosis.step import Step
from flanneld.kernel.entries import RTN_LOCAL

if TYPE_CHECKING:
    from flanneld.diagnosis.leg import Leg

_UNCLEAR = {errno.EXDEV, errno.EINVAL}  # what refuses a source: older kernels, newer ones


def forwarding(leg: Leg) -> Step:
    """The node passes on what comes in by the link."""
    if not leg.switch:
        return Step("forwarding", True, f"what comes in by {leg.packet.iif} is passed on")
    return off(leg.switch, _what(leg))


def off(switch: str, what: str) -> Step:
    """Say that a switch keeps packets from being passed on."""
    place = "/proc/sys/" + "/".join(switch.split(".", 3 if ".conf." in switch else -1))
    return Step(
        "forwarding",
        False,
        f"{switch} is 0: {what} is not passed on",
        f"sysctl -w {switch}=1 ({place}), and look into /etc/sysctl.d for what sets it back",
    )


def routed(leg: Leg, link: str, destination: str = "") -> Step:
    """The kernel takes the route to a link, with a destination if one is given."""
    taken = leg.taken
    if taken is None:
        return Step("route", True, "not asked")
    if taken.route is None:
        return _refused(leg)
    goes = taken.link.name if taken.link is not None else "nowhere"
    if (link and goes != link) or destination not in {"", str(taken.route.dst)}:
        return Step(
            "route",
            False,
            f"for {_what(leg)} the kernel takes another route: {taken.text}{_by(leg)}",
            "a longer prefix, a better metric or a rule (ip rule) comes before the daemon's route:"
            " remove it",
        )
    return Step("route", True, f"{taken.text}{_by(leg)}")


def arrives(leg: Leg) -> Step:
    """The kernel takes it for this node's own."""
    taken = leg.taken
    if taken is None or (taken.route is not None and taken.route.type == RTN_LOCAL):
        return Step("arrival", True, f"{leg.target} is an address of this node")
    if taken.route is None and taken.errno in _UNCLEAR:
        return _refused(leg)
    return Step(
        "arrival",
        False,
        f"{leg.target} is no address of this node any more: what other nodes send does not arrive",
        f"ip address add {leg.target} dev {leg.packet.iif}, or restart the network manager",
    )


def leaves(leg: Leg, tunnel: str) -> Step:
    """The kernel has a route on the underlay, not into the tunnel."""
    taken = leg.taken
    if taken is not None and taken.link is not None and taken.link.name == tunnel:
        return into_tunnel(leg.target, taken.text)
    return routed(leg, "")


def into_tunnel(address: object, route: str) -> Step:
    """Say that a tunnel's own packets would go into it."""
    return Step(
        "underlay",
        False,
        f"the way to {address} leads into the tunnel: {route}",
        "the network overlaps the nodes' own addresses: choose another Network",
    )


def _refused(leg: Leg) -> Step:
    taken = leg.taken
    number = 0 if taken is None else taken.errno
    if number in _UNCLEAR and leg.reverse:
        back = f" ({leg.back} does)" if leg.back and leg.back != leg.packet.iif else ""
        return Step(
            "route",
            False,
            f"{leg.reverse} is on, and {leg.packet.iif} does not lead back to {leg.source}{back}:"
            f" {_what(leg)} is dropped{_by(leg)}",
            f"sysctl -w net.ipv4.conf.{leg.packet.iif}.rp_filter=2, or mend the route to"
            f" {leg.source}",
        )
    why = taken.refusal if taken is not None else ""
    return Step(
        "route",
        False,
        f"the kernel has no route for {_what(leg)}: {why}{_by(leg)}",
        "look at ip route and ip rule",
    )


def filtered(leg: Leg) -> Step:
    """No packet filter drops it."""
    dropped = leg.verdict.dropped
    if dropped is None:
        return Step("firewall", True, f"nothing known drops {_what(leg)}")
    return Step("firewall", False, f"{dropped}: it drops {_what(leg)}", dropped.remedy)


def doubts(leg: Leg) -> list[str]:
    """Say what may drop it, one sentence each."""
    return [
        f"{blame}: whether it drops {_what(leg)} is not known from here"
        for blame in leg.verdict.perhaps
    ]


def _what(leg: Leg) -> str:
    packet = leg.packet
    port = "" if packet.dport is None else f" {packet.protocol} port {packet.dport}"
    ways = {"through": f" (in by {packet.iif})", "out": "", "in": f" (in by {packet.iif})"}
    source, target = (
        str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)
        for net in (packet.source, packet.target)
    )
    return f"{source} -> {target}{port}{ways[leg.course]}"


def _by(leg: Leg) -> str:
    """Name the rules that sent it there."""
    return f", by {'; '.join(map(str, leg.rules))}" if leg.rules else ""

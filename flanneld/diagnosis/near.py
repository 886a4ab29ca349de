"""The steps near the pods: the two addresses, this node's own links, the lease. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.diagnosis.pods import USUAL
from flanneld.diagnosis.step import Step, unroutable
from flanneld.diagnosis.subject import public_ip
from flanneld.kernel.forwarding import SWITCH

if TYPE_CHECKING:
    from flanneld.backend.base import External
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.diagnosis.facts import Facts, Place
    from flanneld.diagnosis.pods import PodsLink, Uplink


def ends(facts: Facts) -> Step:
    """One of the two addresses is of this node."""
    source, target = facts.source, facts.target
    found = f"{source.address} is {_described(source)}, {target.address} is {_described(target)}"
    if source.is_here or target.is_here:
        return Step("ends", True, found)
    where = [public_ip(end.lease, end.address.version) for end in (source, target) if end.lease]
    there = f"on the node of {where[0]}" if where else "on the node of the pod"
    return Step(
        "ends",
        False,
        f"neither address is of this node: {found}",
        f"run this command {there}. If one is a pod of this node, it has its address from a lease"
        " that is gone: make the pod anew",
    )


def _described(place: Place) -> str:
    where = public_ip(place.lease, place.address.version) if place.lease is not None else None
    return {
        "pod": "of this node's subnet",
        "host": "this node's own",
        "peer": f"of the node {where}" if place.lease is not None else "leased by no node",
        "node": f"the node of {place.lease.key if place.lease is not None else ''} itself",
        "elsewhere": "no pod's and no node's of this network",
    }[place.kind]


def uplink(external: External, address: AnyAddress | None, own: Uplink) -> Step:
    """The external interface is up, and has this node's address."""
    name = external.name
    if own.link is None or not own.link.is_up:
        state = "is down" if own.link is not None else "does not exist"
        return Step(
            "uplink",
            False,
            f"the external interface {name} {state}: no other node is reached",
            "bring it up; the daemon follows by itself",
        )
    if address is not None and not own.has_address:
        return Step(
            "uplink",
            False,
            f"{name} has lost this node's address {address}: what other nodes send does not arrive",
            f"ip address add {address} dev {name}, or restart the network manager",
        )
    return Step("uplink", True, f"{name} is up, and has {address}")


def trouble(found: PodsLink, subnet: AnyNetwork, known: str) -> Step | None:
    """Say why pods are cut off on their link; None if they are not, or there are none yet.

    ``known`` is the link that they were on before, "" if that is not known.
    """
    link, gateway = found.link, f"{subnet[1]}/{subnet.prefixlen}"
    again = "the plugins mend it with the next pod"
    if link is None and not found.orphans and not known:
        return None
    if link is None:
        alone = f": {', '.join(found.orphans[:5])} have lost it" if found.orphans else ""
        return Step(
            "pod's link",
            False,
            f"{known or USUAL}, the bridge of this node's pods, does not exist{alone}",
            f"{again}; pods that have lost it must be made anew",
        )
    if not found.has_gateway:
        return Step(
            "pod's link",
            False,
            f"{link.name} has not the gateway's address {gateway}: pods reach nothing but one"
            " another",
            f"ip address add {gateway} dev {link.name}; {again}",
        )
    if not link.is_up:
        return Step("pod's link", False, f"{link.name} is down", f"ip link set {link.name} up")
    return None


def pod_link(facts: Facts, pod: Place) -> Step:
    """A pod of this node is on a link of pods."""
    taken, version = facts.routes[pod.address], pod.address.version
    subnet = facts.view.subject.subnet(version)
    wrong = trouble(facts.link, subnet, "") if subnet is not None else None
    if wrong is not None:
        return wrong
    if taken.route is None or taken.link is None:
        return unroutable("pod's link", pod.address, taken)
    if taken.route.gw is not None or (subnet and taken.route.dst.length < subnet.prefixlen):
        return Step(
            "pod's link",
            False,
            f"{pod.address} is on no link of pods: {taken.text}",
            "pods of this node are on its own bridge: is there one yet, and has it the address of"
            " subnet.env? A stale route may be in its way",
        )
    if not taken.link.is_up:
        return Step(
            "pod's link", False, f"{taken.link.name} is down", f"ip link set {taken.link.name} up"
        )
    return Step("pod's link", True, taken.text)


def same_link(facts: Facts) -> Step:
    """Both pods are on one link."""
    source, target = (facts.routes[end.address] for end in (facts.source, facts.target))
    if target.link is None or source.link is None or source.link.index != target.link.index:
        return Step(
            "target's link",
            False,
            f"{facts.target.address} is not on the same link: {target.text}",
            "both are of this node's subnet, so both should be on its bridge",
        )
    return Step("target's link", True, f"{facts.target.address} is on {target.link.name} as well")


def forwarding(facts: Facts) -> Step:
    """The node forwards."""
    name = SWITCH[facts.target.address.version]
    if facts.is_on:
        return Step("forwarding", True, f"{name} is on")
    return Step("forwarding", False, f"{name} is off: nothing is forwarded", f"sysctl -w {name}=1")


def lease(facts: Facts, peer: Place) -> Step:
    """Somebody has leased the subnet of a peer's pod."""
    if peer.lease is None:
        remedy = "its node has lost its lease, or has never had this one: look at flanneld there"
        if not facts.view.running:
            remedy = "flanneld does not run here: what it knew may be old; start it"
        return Step("lease", False, f"no node has leased a subnet with {peer.address}", remedy)
    where = public_ip(peer.lease, peer.address.version)
    kind = peer.lease.attributes.backend_type or facts.view.state.conf.backend_type
    return Step("lease", True, f"{peer.lease.key} is leased to {where} ({kind})")

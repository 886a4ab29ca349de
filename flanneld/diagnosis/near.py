"""The steps near the pods: the two addresses, this node's own links, the lease. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.diagnosis.facts import holder, public_ip
from flanneld.diagnosis.step import Step, unroutable
from flanneld.kernel.forwarding import SWITCH

if TYPE_CHECKING:
    from flanneld.diagnosis.facts import Facts


def networks(facts: Facts) -> Step:
    """Both are addresses of this network."""
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


def source(facts: Facts) -> Step:
    """The source is of a pod of this node."""
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


def local_link(facts: Facts) -> Step:
    """The source is on a link of pods."""
    taken = facts.routes[facts.source]
    if taken.route is None or taken.link is None:
        return unroutable("pod's link", facts.source, taken)
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


def local_target(facts: Facts) -> Step:
    """The target is on the same link."""
    source, target = facts.routes[facts.source], facts.routes[facts.target]
    if target.route is None or target.link is None:
        return unroutable("target's link", facts.target, target)
    if source.link is None or source.link.index != target.link.index:
        return Step(
            "target's link",
            False,
            f"{facts.target} is not on the same link: {target.text}",
            "both are of this node's subnet, so both should be on its bridge",
        )
    return Step("target's link", True, f"{facts.target} is on {target.link.name} as well")


def forwarding(facts: Facts) -> Step:
    """The node forwards."""
    name = SWITCH[facts.target.version]
    if facts.forwarding:
        return Step("forwarding", True, f"{name} is on")
    return Step("forwarding", False, f"{name} is off: nothing is forwarded", f"sysctl -w {name}=1")


def lease(facts: Facts) -> Step:
    """Somebody has leased the target."""
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

"""From one address to another and back, step by step, to the first that is broken. Pure.

The order is the packet's: out of the pod, through this node's filters, rules and routes, onto the
tunnel or the link, over the underlay; then the answer's way. What happens on the other node is seen
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.diagnosis import near, passage, way
from flanneld.diagnosis.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.diagnosis.facts import Facts, Place
    from flanneld.diagnosis.leg import Leg


def walk(facts: Facts) -> Iterator[Step]:
    """Give the steps up to the first broken one, that one included; then what is not known."""
    for step in _steps(facts):
        yield step
        if not step.is_ok:
            return
    yield from (Step("unknown", True, text) for text in _unknown(facts))


def _steps(facts: Facts) -> Iterator[Step]:
    source, target = facts.source, facts.target
    yield near.ends(facts)
    yield from (near.pod_link(facts, end) for end in (source, target) if end.kind == "pod")
    if source.kind == target.kind == "pod":
        yield near.same_link(facts)
        if facts.filters_bridge and facts.out is not None and facts.back is not None:
            yield passage.filtered(facts.out)
            yield passage.filtered(facts.back)
        return
    if not (source.kind == "host" or target.kind == "host"):
        yield near.forwarding(facts)
    if "peer" in {source.kind, target.kind}:
        subject = facts.view.subject
        own = subject.address(source.address.version)
        yield near.uplink(subject.external, own, facts.uplink)
    for start, end, leg in ((source, target, facts.out), (target, source, facts.back)):
        yield from _arrival(facts, start)
        yield from _crossing(facts, end, leg)
    yield way.rules(facts)
    yield way.daemon(facts)
    yield way.causes(facts)


def _arrival(facts: Facts, peer: Place) -> Iterator[Step]:
    """What a peer sends is let in."""
    tunnel = facts.tunnel(peer)
    if tunnel is not None and tunnel.received is not None:
        yield passage.arrives(tunnel.received)
        yield passage.filtered(tunnel.received)


def _crossing(facts: Facts, end: Place, leg: Leg | None) -> Iterator[Step]:
    """A packet gets through this node to an end, and on to the peer if it is a peer's."""
    if end.kind != "peer":
        yield from [] if leg is None else _passed(leg)
        return
    yield near.lease(facts, end)
    yield way.plan(end)
    yield way.device(facts, end)
    if leg is not None:
        yield passage.forwarding(leg)
        yield way.route(facts, end, leg)
        yield passage.filtered(leg)
    yield way.neighbour(end)
    yield way.fdb(end)
    yield way.underlay(facts, end)
    yield way.underlay_mtu(facts, end)
    yield way.next_hop(facts, end)
    tunnel = facts.tunnel(end)
    if tunnel is not None and tunnel.sent is not None:
        yield passage.filtered(tunnel.sent)


def _passed(leg: Leg) -> Iterator[Step]:
    yield passage.forwarding(leg)
    yield passage.arrives(leg) if leg.course == "in" else passage.routed(leg, "")
    yield passage.filtered(leg)


def _unknown(facts: Facts) -> Iterator[str]:
    """Say plainly what cannot be known from here."""
    legs = [facts.out, facts.back]
    for tunnel in facts.tunnels:
        legs += [tunnel.sent, tunnel.received]
    yield from dict.fromkeys(
        text for leg in legs if leg is not None for text in passage.doubts(leg)
    )
    yield from facts.unknown
    for end in (facts.source, facts.target):
        if end.kind == "elsewhere":
            yield (
                f"{end.address} is outside of this network: whether anybody has it, and answers, is"
                " not known from here"
            )
        elif end.kind in {"peer", "node"}:
            yield f"what the node of {end.address} does with the packet is seen there"
    yield "programs of BPF (tc, XDP), IPsec policies and firewalls between the nodes are not seen"

"""From one pod's address to another, step by step, to the first that is broken. Pure.

The order is the packet's: out of the pod, through this node's routes and rules, onto the tunnel or
the link, over the underlay. What happens on the other node is seen there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.diagnosis import near, way
from flanneld.diagnosis.facts import holder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flanneld.diagnosis.facts import Facts
    from flanneld.diagnosis.step import Step


def walk(facts: Facts) -> Iterator[Step]:
    """Give the steps up to the first broken one, that one included."""
    for look in _steps(facts):
        step = look(facts)
        yield step
        if not step.is_ok:
            return


def _steps(facts: Facts) -> tuple[Callable[[Facts], Step], ...]:
    own, far = facts.view.state.lease, holder(facts.view, facts.target)
    start = (near.networks, near.source)
    if far is None:
        return (*start, near.lease)
    if far is own:
        return (*start, near.lease, near.local_link, near.local_target)
    return (
        *start,
        near.local_link,
        near.forwarding,
        near.lease,
        way.plan,
        way.device,
        way.route,
        way.neighbour,
        way.fdb,
        way.underlay,
        way.underlay_mtu,
        way.next_hop,
        way.rules,
        way.daemon,
    )

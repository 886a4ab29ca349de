"""What the kernel of this node should hold, all told: the backend's plan, and what flags add.

The daemon and the commands that judge its work plan with this alike. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld.desired import Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.backend.base import Backend, External, Identity
    from flanneld.desired import AnyNetwork, Desired
    from flanneld.lease import Lease


def plan(
    backend: Backend,
    own: Lease,
    peers: Iterable[Lease],
    external: External,
    identity: Identity,
    *,
    blackhole: bool,
    earlier: Iterable[AnyNetwork] = (),
) -> Desired:
    """Plan for these leases; ``config.ConfigError`` if the node cannot take part.

    ``blackhole`` is ``--ip-blackhole-route``; ``earlier`` are the networks of an earlier run, in
    which what that one left is stale.
    """
    desired = backend.plan(own, peers, external, identity)
    holes = {
        Route(link="", destination=subnet, gateway=None, blackhole=True)
        for subnet in (own.subnet, own.subnet6)
        if blackhole and subnet is not None
    }
    return replace(
        desired,
        routes=desired.routes | holes,
        networks=desired.networks | frozenset(earlier),
    )

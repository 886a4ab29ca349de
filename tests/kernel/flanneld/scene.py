"""Node 1 in the namespace of the test: its interface, its reconciler, and what `ip` says of it.

`up()` comes first. The kernel is read with ip(8) and bridge(8), never with the code under test.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

from flanneld import target
from flanneld.backend.registry import backend_for
from flanneld.kernel.reconciler import Reconciler
from tests.kernel.privatens import sh
from tests.unit.flanneld.cluster import conf, external, identity, lease

if TYPE_CHECKING:
    from flanneld.desired import Desired
    from flanneld.kernel.difference import Difference
    from flanneld.kernel.reconciler import Report
    from flanneld.lease import Lease

OURS = "244"


def up(*, other: str = "192.168.9.254") -> None:
    """Make eth0, with a neighbour at its other end that answers nobody."""
    sh(
        "ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up;"
        "ip address add 192.168.9.1/24 dev eth0; ip address add fd09::1/64 dev eth0 nodad;"
        f"ip neighbour add {other} lladdr 02:00:00:00:09:fe dev eth0 nud permanent"
    )


def plan(
    *peers: Lease,
    n: int = 1,
    kind: str = "vxlan",
    families: str = "4",
    blackhole: bool = False,
    **keys: Any,
) -> Desired:
    """Plan for node N among these peers."""
    made = backend_for(conf(kind, families=families, **keys))
    own = lease(n, kind, families=families)
    outer = external(n, families=families, index=socket.if_nametoindex("eth0"))
    return target.plan(made, own, peers, outer, identity(n), blackhole=blackhole)


def apply(desired: Desired) -> Report:
    """Make the kernel so, once."""

    async def run() -> Report:
        reconciler = Reconciler()
        try:
            return await reconciler.apply(desired)
        finally:
            reconciler.close()

    return asyncio.run(run())


def differences(desired: Desired) -> Difference:
    """Compare, as `flanneld diff` does."""

    async def run() -> Difference:
        reconciler = Reconciler()
        try:
            return await reconciler.differences(desired)
        finally:
            reconciler.close()

    return asyncio.run(run())


def settle(desired: Desired) -> Report:
    """Apply; then nothing may differ, and a second run may change nothing."""
    report = apply(desired)
    assert not report.problems
    assert not differences(desired)
    again = apply(desired)
    assert not again.changes
    return report


# ------------------------------------------------------------------------------------- the oracle


def _json(command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sh(command) or "[]")
    return [entry for entry in found if entry]


def link(name: str) -> dict[str, Any] | None:
    """`ip -d link show`, or None."""
    return next((one for one in _json("ip -j -d link") if one["ifname"] == name), None)


def routes(family: int = 4) -> dict[str, dict[str, Any]]:
    """Routes of the main table, by destination; a destination has one."""
    found = _json(f"ip -j -d -{family} route show table main")
    by_destination = {route["dst"]: route for route in found}
    assert len(by_destination) == len(found) or family == 6  # fe80::/64 is there for each link
    return by_destination


def route(destination: str) -> str:
    """One route as `ip` spells it, with its protocol's number; "" if there is none."""
    family = 6 if ":" in destination else 4
    return " ".join(sh(f"ip -N -{family} route show exact {destination}").split())


def neighbours(device: str) -> dict[str, str]:
    """MACs of permanent neighbours, by address."""
    found = _json(f"ip -j neighbour show dev {device} nud permanent")
    return {one["dst"]: one["lladdr"] for one in found}


def forwards(device: str) -> set[tuple[str, str]]:
    """MAC and remote of permanent FDB entries."""
    found = _json(f"bridge -j fdb show dev {device}")
    return {(one["mac"], one["dst"]) for one in found if one["state"] == "permanent"}


def addresses(device: str) -> set[str]:
    """Global addresses with their prefix length."""
    (found,) = _json(f"ip -j address show dev {device}")
    return {
        f"{one['local']}/{one['prefixlen']}"
        for one in found["addr_info"]
        if one["scope"] == "global"
    }

"""How a node comes into the network: its place in the underlay, its MACs, its lease."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld import identity, node, record, subnet_env
from flanneld.backend.base import Identity
from flanneld.claim import Claim
from flanneld.external import ExternalError
from flanneld.kernel import interfaces
from flanneld.links import Known
from flanneld.node import Node
from flanneld.pace import patiently
from flanneld.readiness import stamp
from flanneld.subnet import choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flanneld.backend.base import Backend, External
    from flanneld.config import NetConf
    from flanneld.desired import AnyNetwork, Desired
    from flanneld.kernel.reconciler import Reconciler
    from flanneld.lease import Lease
    from flanneld.options import Options
    from flanneld.subnet.manager import Manager, Snapshot

_log = logging.getLogger(__name__)
_NOBODY = Identity()
_LOOK_AGAIN_S = 1.0  # for an interface to the other nodes


async def join(
    options: Options,
    conf: NetConf,
    backend: Backend,
    manager: Manager,
    *,
    reconciler: Reconciler,
    failed: Callable[[str], None],
    waiting: Callable[[str], None],
) -> Node:
    """Decide on the node and lease its subnet, waiting for the store as long as it takes.

    And for an interface to the others: ``waiting`` is told what is waited for, in the end "".
    ConfigError if the node cannot take part; Exhausted if there is no subnet.
    """
    existing = await reconciler.macs()
    seen = await patiently("the store", manager.leases, failed)
    claim = replace(_claim(options, backend, existing), named=seen.own)
    external = await _uplink(options, conf, claim, seen, waiting)
    _log.info("external interface", extra=node.described(external))
    claim = replace(
        claim,
        attributes=backend.attributes(external, _NOBODY),
        uplink=tuple(one for one in external.reserved if _is_uplink(one, external)),
        avoid=external.reserved,
    )
    own = claim.own(seen.leases.values())
    sure = own[0] if own and claim.is_sure(own[0]) else claim.last
    macs = _macs(options.data_dir, backend, external, existing, sure)
    if own and (seen.own is not None or choice.fits(own[0], conf, claim.uplink)):
        await _make_devices(reconciler, backend.plan(own[0], (), external, macs))
    claim = replace(claim, attributes=backend.attributes(external, macs))
    lease = await patiently("a lease", lambda: manager.acquire(claim), failed)
    expires = "never" if lease.expires is None else stamp(lease.expires)
    _log.info("lease acquired", extra={"lease": lease.key, "expires": expires})
    return Node(conf, external, macs, lease, seen.asked)


def _claim(options: Options, backend: Backend, existing: Mapping[str, str]) -> Claim:
    """Gather what shows which lease is this node's, before its address is decided.  OSError."""
    links = interfaces.read().interfaces
    this = record.machine({one.mac for one in links if one.mac and not one.is_flannels})
    return Claim(
        macs=frozenset(existing[name] for name in backend.devices if name in existing),
        addresses=frozenset(entry.address for one in links for entry in one.addresses),
        last=record.load(record.path(options.data_dir, options.subnet_file), this),
        previous=subnet_env.previous(options.subnet_file).lease,
    )


async def _uplink(
    options: Options,
    conf: NetConf,
    claim: Claim,
    seen: Snapshot,
    waiting: Callable[[str], None],
) -> External:
    """Find the external interface, as soon as there is one; ``waiting`` is told what hinders."""
    own = claim.own(seen.leases.values())
    known = Known(
        held=frozenset(ip for lease in own for ip in lease.attributes.public_ips),
        others=frozenset(
            ip
            for lease in seen.leases.values()
            if lease not in own
            for ip in lease.attributes.public_ips
        ),
        pods=tuple(
            subnet
            for lease in (*own, claim.last, claim.previous)
            if lease
            for subnet in lease.subnets
        ),
        asked=seen.asked,
    )
    while True:
        try:
            found = node.look(options, conf, known)
        except (ExternalError, OSError) as error:
            waiting(f"this node has no way to the others: {error}")
        else:
            waiting("")
            return found
        await asyncio.sleep(_LOOK_AGAIN_S)


def _is_uplink(prefix: AnyNetwork, external: External) -> bool:
    """Whether a prefix is on the link to the others, or one address."""
    return prefix in external.onlink or prefix.prefixlen == prefix.max_prefixlen


def remember(options: Options, node: Node) -> list[str]:
    """Keep the node's lease for its next run; gives what hinders, which is no hindrance for now."""
    place = record.path(options.data_dir, options.subnet_file)
    try:
        link = interfaces.mac(node.external.index)
        record.save(place, record.machine([link] if link else []), node.lease)
    except OSError as error:
        return [f"this node's lease is not kept for its next run: {error}"]
    return []


async def _make_devices(reconciler: Reconciler, alone: Desired) -> None:
    """Make devices that are not there yet, before the lease tells others of them.

    A node that comes back with another backend has pods, and peers send to its new device as soon
    as they read of it. What stands in the way is told by the first pass.
    """
    names = {device.name for device in alone.devices}
    try:
        if names and names.isdisjoint(await reconciler.macs()):
            await reconciler.apply(replace(alone, routes=frozenset(), networks=frozenset()))
    except OSError as error:
        _log.warning("the devices are not made yet: %s", error)


def _macs(
    folder: str,
    backend: Backend,
    external: External,
    existing: Mapping[str, str],
    own: Lease | None,
) -> Identity:
    """Decide on the MACs; a folder that cannot be used is no hindrance."""
    names = backend.devices
    try:
        kept = identity.load(folder, names, external)
    except OSError as error:
        _log.warning("the MACs of an earlier run are not known: %s", error)
        kept = _NOBODY
    stored = Identity(*own.attributes.vteps) if own is not None else _NOBODY
    macs = identity.resolve(names, existing, kept, stored)
    try:
        identity.save(folder, names, external, macs)
    except OSError as error:
        _log.warning("the MACs will not outlive a reboot: %s", error)
    return macs

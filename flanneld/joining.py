"""How a node comes into the network: its place in the underlay, its MACs, its lease."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from flanneld import identity, node, subnet_env
from flanneld.backend.base import Identity
from flanneld.node import Node
from flanneld.pace import patiently
from flanneld.readiness import stamp
from flanneld.subnet import choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld.backend.base import Backend, External
    from flanneld.config import NetConf
    from flanneld.desired import Desired
    from flanneld.kernel.reconciler import Reconciler
    from flanneld.lease import Lease
    from flanneld.options import Options
    from flanneld.subnet.manager import Manager

_log = logging.getLogger(__name__)
_NOBODY = Identity()


async def join(
    options: Options,
    conf: NetConf,
    backend: Backend,
    manager: Manager,
    *,
    reconciler: Reconciler,
    failed: Callable[[str], None],
) -> Node:
    """Decide on the node and lease its subnet, waiting for the store as long as it takes.

    ExternalError, ConfigError if the node cannot take part; Exhausted if there is no subnet.
    """
    external = node.look(options, conf)
    _log.info("external interface", extra=node.described(external))
    nobody = backend.attributes(external, _NOBODY)
    own = await patiently("the store", lambda: manager.own(nobody), failed)
    macs = await _macs(options.data_dir, backend, external, reconciler, own)
    if own is not None and choice.fits(own, conf):
        await _make_devices(reconciler, backend.plan(own, (), external, macs))
    attributes = backend.attributes(external, macs)
    previous = subnet_env.previous(options.subnet_file).lease
    lease = await patiently("a lease", lambda: manager.acquire(attributes, previous), failed)
    expires = "never" if lease.expires is None else stamp(lease.expires)
    _log.info("lease acquired", extra={"lease": lease.key, "expires": expires})
    return Node(conf, external, macs, lease)


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


async def _macs(
    folder: str, backend: Backend, external: External, reconciler: Reconciler, own: Lease | None
) -> Identity:
    """Decide on the MACs; a folder that cannot be used is no hindrance."""
    names = backend.devices
    try:
        kept = identity.load(folder, names, external)
    except OSError as error:
        _log.warning("the MACs of an earlier run are not known: %s", error)
        kept = _NOBODY
    macs = identity.resolve(names, await reconciler.macs(), kept, own)
    try:
        identity.save(folder, names, external, macs)
    except OSError as error:
        _log.warning("the MACs will not outlive a reboot: %s", error)
    return macs

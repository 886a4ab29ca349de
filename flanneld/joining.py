"""How a node comes into the network: its place in the underlay, its MACs, its lease."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flanneld import identity, node, subnet_env
from flanneld.backend.base import Identity
from flanneld.node import Node
from flanneld.pace import patiently

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld.backend.base import Backend, External
    from flanneld.config import NetConf
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
    failed: Callable[[], None],
) -> Node:
    """Decide on the node and lease its subnet, waiting for the store as long as it takes.

    ExternalError, ConfigError if the node cannot take part; Exhausted if there is no subnet.
    """
    external = node.look(options, conf)
    _log.info("external interface", extra=node.described(external))
    nobody = backend.attributes(external, _NOBODY)
    own = await patiently("the store", lambda: manager.own(nobody), failed)
    macs = await _macs(options.data_dir, backend, external, reconciler, own)
    attributes = backend.attributes(external, macs)
    previous = subnet_env.previous(options.subnet_file).lease
    lease = await patiently("a lease", lambda: manager.acquire(attributes, previous), failed)
    _log.info("lease acquired", extra={"lease": lease.key, "expires": lease.expires})
    return Node(conf, external, macs, lease)


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

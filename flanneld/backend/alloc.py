"""alloc: this node leases a subnet, and something else makes the paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.desired import Desired
from flanneld.lease import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.backend.base import External, Identity
    from flanneld.config import NetConf
    from flanneld.lease import Lease


class AllocBackend:
    """The backend ``alloc`` of one network."""

    name = "alloc"
    devices = ("", "")
    port = 0

    def __init__(self, conf: NetConf) -> None:
        """Take the network's configuration; the backend has no keys of its own."""
        self._networks = tuple(net for net in (conf.network, conf.network6) if net is not None)

    def attributes(self, external: External, identity: Identity) -> Attributes:
        """Publish the address alone, without a type, as Go does."""
        del identity
        return Attributes(external.public_ip, external.public_ip6)

    def mtu(self, external: External) -> int:
        """Give the interface's own."""
        return external.mtu

    def plan(
        self, own: Lease, leases: Iterable[Lease], external: External, identity: Identity
    ) -> Desired:
        """Plan nothing: what an earlier run with another backend left is stale."""
        del own, leases, external, identity
        return Desired(networks=frozenset(self._networks))

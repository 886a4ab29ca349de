"""What this node is in the network: decided at start, and anew when the node itself changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flanneld import external
from flanneld.kernel import interfaces, underlay

if TYPE_CHECKING:
    from flanneld.backend.base import External, Identity
    from flanneld.config import NetConf
    from flanneld.lease import Lease
    from flanneld.options import Options


@dataclass(frozen=True, slots=True)
class Node:
    """The network's configuration, this node's place in the underlay, its MACs, its lease."""

    conf: NetConf
    external: External
    identity: Identity
    lease: Lease

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that the network has."""
        networks = (self.conf.network, self.conf.network6)
        return tuple(network.version for network in networks if network is not None)


def look(options: Options, conf: NetConf) -> External:
    """Find the external interface as it is now; ExternalError, OSError."""
    found = external.choose(options, conf, interfaces.read(options.iface_can_reach))
    return replace(found, onlink=underlay.onlink(found.name))


def described(external: External) -> dict[str, object]:
    """Name what the log says of the external interface."""
    pairs = {
        "interface": external.name,
        "mtu": external.mtu,
        "address": external.address,
        "address6": external.address6,
        "public_ip": external.public_ip,
        "public_ip6": external.public_ip6,
    }
    return {name: value for name, value in pairs.items() if value is not None}

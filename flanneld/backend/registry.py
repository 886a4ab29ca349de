"""Backends by the name that ``Backend.Type`` gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend.alloc import AllocBackend
from flanneld.backend.hostgw import HostGwBackend
from flanneld.backend.udp import UdpBackend
from flanneld.backend.vxlan import VxlanBackend
from flanneld.config import ConfigError
from flanneld.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld.backend.base import Backend
    from flanneld.config import NetConf

_BACKENDS: dict[str, Callable[[NetConf], Backend]] = {
    "alloc": AllocBackend,
    "host-gw": HostGwBackend,
    "udp": UdpBackend,
    "vxlan": VxlanBackend,
}


def backend_for(conf: NetConf) -> Backend:
    """Make the network's backend; ConfigError if it is unknown or its object is wrong."""
    try:
        make = _BACKENDS[conf.backend_type]
    except KeyError:
        known = ", ".join(sorted(_BACKENDS))
        raise ConfigError(
            f"unknown backend type: {plain(conf.backend_type)[:200]} (known: {known})"
        ) from None
    return make(conf)

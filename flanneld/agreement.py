"""What all nodes of a network must agree on, and whether a changed configuration breaks it.

A daemon reads the configuration when it starts, as the Go daemon does.  A node that starts after a
change has another VNI, or sends to another port, and nobody publishes his port.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.backend.registry import backend_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.config import NetConf


def broken(old: NetConf, new: NetConf) -> list[str]:
    """Say in what nodes with one and the other do not agree; ConfigError if the new is wrong."""
    return _differences(_vital(old), _vital(new))


def changed(old: NetConf, new: NetConf) -> list[str]:
    """Say what differs else: a node keeps to what it began with."""
    return _differences(_rest(old), _rest(new))


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [
        f"{name} was {_said(old.get(name))} and is {_said(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _said(value: object) -> str:
    return "not set" if value in {None, ""} else str(value)


def _vital(conf: NetConf) -> dict[str, object]:
    backend = backend_for(conf)
    device, device6 = backend.devices
    return {
        "Network": conf.network,
        "IPv6Network": conf.network6,
        "Backend's Type": conf.backend_type,
        "the device of VNI": device or device6,
        "Port": backend.port or None,
    }


def _rest(conf: NetConf) -> dict[str, object]:
    pools = {"SubnetLen": conf.pool, "IPv6SubnetLen": conf.pool6}
    of_backend = {
        f"Backend's {name}": str(value)
        for name, value in conf.backend.items()
        if name.lower() not in {"type", "vni", "port"}
    }
    return {
        "EnableNFTables": conf.nftables,
        **{name: pool.length if pool is not None else None for name, pool in pools.items()},
        **of_backend,
    }

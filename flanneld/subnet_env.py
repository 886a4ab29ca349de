"""The node's ``subnet.env``: written for the plugins, read for the subnet of an earlier run.

Lines, order and spelling are those of the Go daemon (pkg/subnet/subnet.go, WriteSubnetFile).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING

from flanneld import files
from flanneld.lease import Lease
from flanneld.plain import quoted

if TYPE_CHECKING:
    from flanneld.config import NetConf
    from flanneld.desired import AnyNetwork

_log = logging.getLogger(__name__)
_SUBNET = "FLANNEL_SUBNET"
_SUBNET6 = "FLANNEL_IPV6_SUBNET"


def render(conf: NetConf, lease: Lease, mtu: int, *, ip_masq: bool) -> str:
    """Write the lines; the subnet is spelled as its first address, which is the bridge's."""
    lines = []
    if conf.network is not None and lease.subnet is not None:
        lines += [
            f"FLANNEL_NETWORK={conf.network}",
            f"{_SUBNET}={lease.subnet.network_address + 1}/{lease.subnet.prefixlen}",
        ]
    if conf.network6 is not None and lease.subnet6 is not None:
        lines += [
            f"FLANNEL_IPV6_NETWORK={conf.network6}",
            f"{_SUBNET6}={lease.subnet6.network_address + 1}/{lease.subnet6.prefixlen}",
        ]
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={'true' if ip_masq else 'false'}"]
    return "".join(f"{line}\n" for line in lines)


def write(path: str, text: str) -> bool:
    """Put the file in place if it differs; whether it did.  OSError if it cannot be written."""
    return files.update(path, text.encode())


@dataclass(frozen=True, slots=True)
class Previous:
    """What an earlier run wrote: its networks, and its subnets or None."""

    lease: Lease | None = None
    networks: tuple[AnyNetwork, ...] = ()


def previous(path: str) -> Previous:
    """Read what an earlier run wrote; what cannot be read counts as none.  IsADirectoryError."""
    try:
        text = (files.read(path) or b"").decode(errors="replace")
    except IsADirectoryError:
        raise  # it can never be written either
    except OSError as error:
        _log.warning("what an earlier run wrote is not known: %s", error)
        text = ""
    pairs = (line.strip().partition("=") for line in text.splitlines())
    values = {name: value for name, _, value in pairs}
    networks = [
        found.network
        for name in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK")
        for value in values.get(name, "").split(",")
        if (found := _interface(path, name, value)) is not None
    ]
    subnet = _interface(path, _SUBNET, values.get(_SUBNET, ""))
    subnet6 = _interface(path, _SUBNET6, values.get(_SUBNET6, ""))
    lease = Lease(
        subnet.network if isinstance(subnet, IPv4Interface) else None,
        subnet6.network if isinstance(subnet6, IPv6Interface) else None,
    )
    return Previous(lease if lease.subnet or lease.subnet6 else None, tuple(networks))


def _interface(path: str, name: str, value: str) -> IPv4Interface | IPv6Interface | None:
    if not value:
        return None
    try:
        return ip_interface(value)
    except ValueError:
        _log.warning(
            "ignoring a line of an earlier run: %s=%s is no CIDR",
            name,
            quoted(value),
            extra={"file": path},
        )
        return None

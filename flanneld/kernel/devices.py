"""Carrying out the change of a device, and saying what is in its way.

Knows: the order (made down, its settings, then up, so that no router advertisement is heard), and
what the kernel's refusals mean here. Must not know: peers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from flanneld.desired import Vxlan
from flanneld.kernel import offload, vxlan
from flanneld.kernel.batch import GONE
from flanneld.kernel.vxlan import VxlanLink
from netlink import rtnl, sysctl
from netlink.nlmsg import NetlinkError

if TYPE_CHECKING:
    from flanneld.kernel.difference import Change
    from flanneld.kernel.present import Present
    from netlink.handle import Handle
    from netlink.link import Link


class DeviceError(Exception):
    """A device is not as it should be; ``str`` names it, the cause and the remedy."""


def apply(handle: Handle, change: Change, present: Present) -> list[str]:
    """Make, change, replace or remove a device; DeviceError. Gives what could not be set on it."""
    device = change.value
    if isinstance(device, VxlanLink):
        _delete(handle, device.link.index)
        return []
    if not isinstance(device, Vxlan):
        raise TypeError(f"{change} is no change of a device")
    try:
        if change.action in {"add", "replace"}:
            if change.action == "replace":
                _delete(handle, present.links[device.name].index)
            handle.execute(vxlan.new_vxlan(device, present.links[device.underlay].index))
            handle.execute(rtnl.set_link(device.name, alias=device.alias))
        else:
            _mend(handle, device, present.links[device.name])
        warnings = _set(device)
        handle.execute(rtnl.set_link(device.name, up=True))
    except NetlinkError as error:
        raise DeviceError(_explain(device, error, present)) from error
    return warnings


def _mend(handle: Handle, device: Vxlan, there: Link) -> None:
    """Set what differs, and no more.

    To be told even the MAC that it has makes a link forget its neighbours (neigh_changeaddr in
    net/core/neighbour.c).
    """
    mac = device.mac if there.mac != device.mac else None
    mtu = device.mtu if there.mtu != device.mtu else None
    alias = device.alias if there.alias != device.alias else None
    handle.execute(rtnl.set_link(device.name, mac=mac, mtu=mtu, alias=alias))


def _delete(handle: Handle, index: int) -> None:
    try:
        handle.execute(rtnl.del_link(index))
    except NetlinkError as error:
        if error.errno not in GONE:
            raise


def _set(device: Vxlan) -> list[str]:
    """Set what is no part of the link. Traffic passes without it, so a refusal is a warning."""
    warnings = []
    setting = f"net/ipv6/conf/{device.name}/accept_ra"
    try:
        sysctl.write(setting, 0)
    except OSError as error:
        warnings.append(f"{device.name}: {error.strerror}")
    wanted = device.tx_checksum_offload
    try:
        if wanted is not None and offload.read(device.name) is (not wanted):
            offload.write(device.name, on=wanted)
    except OSError as error:
        turn = "on" if wanted else "off"
        warnings.append(
            f"{device.name}: cannot switch tx checksum offload {turn}: {error.strerror}"
        )
    return warnings


def _explain(device: Vxlan, error: NetlinkError, present: Present) -> str:
    about = f"{device.name} (VNI {device.vni}, port {device.port or vxlan.DEFAULT_PORT})"
    if error.errno in {errno.EEXIST, errno.EADDRINUSE}:
        holders = [str(link) for link in present.vxlans.values() if link.conflicts(device)]
        if holders:
            return (
                f"{about} cannot be made: {', '.join(holders)} has its VNI or port:"
                " delete that one, or choose another VNI or Port in the network's configuration"
            )
        if error.errno == errno.EADDRINUSE:
            port = device.port or vxlan.DEFAULT_PORT
            return (
                f"{about} cannot be started: another program has UDP port {port}"
                f" (`ss -lunp sport = :{port}` names it): stop it, or choose another Port"
            )
    if error.errno == errno.EOPNOTSUPP:
        return (
            f"{about} cannot be made: the kernel has no VXLAN; load or install its module vxlan"
            " (Raspberry Pi OS and Ubuntu: the package linux-modules-extra)"
        )
    if error.errno == errno.EPERM:
        return f"{about} cannot be made: {error}: flanneld needs CAP_NET_ADMIN"
    return f"{about} cannot be made: {error}"

"""Reading the kernel: what it holds of a desired state, and around it.

Knows: which dumps answer that, filtered by the kernel wherever it can, so that the cost does not
grow with the node's other links and routes. Must not know: what is wrong with it (``difference``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.desired import Address, Forward, Neighbour
from flanneld.kernel import entries, offload, vxlan
from flanneld.kernel.present import Present, Settings
from netlink import rtnl, sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.desired import Desired
    from flanneld.kernel.vxlan import VxlanLink
    from netlink.handle import Handle
    from netlink.link import Link

_PROTOCOLS = (entries.RTPROT_FLANNEL, entries.RTPROT_OF_GO)


def read(handle: Handle, desired: Desired) -> Present:
    """Dump what is there. OSError, NetlinkError."""
    vxlans = read_vxlans(handle)
    links: dict[str, Link] = {name: found.link for name, found in vxlans.items()}
    for name in named(desired) - links.keys():
        link = handle.get_link(name)
        if link is not None:
            links[name] = link
    names = {link.index: name for name, link in links.items()}
    wanted = {device.name for device in desired.devices}
    addressed = {address.link for address in desired.addresses}
    possible = {name for name in vxlans if name.startswith("flannel")}
    return Present(
        links=links,
        vxlans=vxlans,
        settings={name: _settings(name) for name in wanted & vxlans.keys()},
        addresses=frozenset(_addresses(handle, links, addressed | wanted | possible)),
        neighbours=frozenset(_neighbours(handle, wanted, vxlans)),
        forwards=frozenset(_forwards(handle, wanted, vxlans)),
        routes=tuple(_routes(handle, desired)),
        names=names,
    )


def read_vxlans(handle: Handle) -> dict[str, VxlanLink]:
    """Read all VXLAN devices, by name."""
    found = map(vxlan.decode, handle.dump(rtnl.dump_links(kind="vxlan")))
    return {link.link.name: link for link in found if link is not None}


def named(desired: Desired) -> set[str]:
    """Give the names of all links that a desired state needs."""
    return (
        {device.name for device in desired.devices}
        | {device.underlay for device in desired.devices}
        | {address.link for address in desired.addresses}
        | {route.link for route in desired.routes if route.link}
    )


def _settings(name: str) -> Settings:
    accept_ra = sysctl.read(f"net/ipv6/conf/{name}/accept_ra")
    return Settings(
        accept_ra=None if accept_ra is None else accept_ra != "0",
        tx_checksum_offload=offload.read(name),
    )


def _addresses(handle: Handle, links: Mapping[str, Link], names: set[str]) -> Iterable[Address]:
    for name in names & links.keys():
        index = links[name].index
        for message in handle.dump_of(entries.dump_addresses(index)):
            found = entries.decode_address(message)
            if found is not None and found[0] == index:
                yield Address(name, found[1])


def _neighbours(
    handle: Handle, names: set[str], devices: Mapping[str, VxlanLink]
) -> Iterable[Neighbour]:
    for name in names & devices.keys():
        index = devices[name].link.index
        for message in handle.dump_of(entries.dump_neighbours(index)):
            found = entries.decode_neighbour(message)
            if found is not None and found[0] == index:
                yield Neighbour(name, found[1], found[2])


def _forwards(
    handle: Handle, names: set[str], devices: Mapping[str, VxlanLink]
) -> Iterable[Forward]:
    for name in names & devices.keys():
        index = devices[name].link.index
        for message in handle.dump_of(entries.dump_forwards(index)):
            found = entries.decode_forward(message)
            if found is not None and found[0] == index:
                yield Forward(name, found[1], found[2])


def _routes(handle: Handle, desired: Desired) -> Iterable[entries.RouteEntry]:
    for version in sorted({network.version for network in desired.networks}):
        for protocol in _PROTOCOLS:
            for message in handle.dump_of(entries.dump_routes(version, protocol)):
                found = entries.decode_route(message)
                if found is not None and found.protocol == protocol:
                    yield found

"""Reading the kernel: what it holds of a desired state, and around it.

Knows: which dumps answer that, filtered by the kernel wherever it can, so that the cost does not
grow with the node's other links and routes. Must not know: what is wrong with it (``difference``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from flanneld.desired import Address, Forward, Neighbour
from flanneld.kernel import entries, offload, vxlan
from flanneld.kernel.present import Present, Settings
from netlink import rtnl, sysctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flanneld.desired import Desired
    from flanneld.kernel.vxlan import VxlanLink
    from netlink.handle import Handle
    from netlink.link import Link
    from netlink.nlmsg import Message

Entry = TypeVar("Entry", bound="tuple[int, *tuple[object, ...]]")

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
    of_vxlans = wanted & vxlans.keys()
    possible = {name for name in vxlans if name.startswith("flannel")}
    return Present(
        links=links,
        vxlans=vxlans,
        settings={name: _settings(name) for name in of_vxlans},
        addresses=frozenset(_addresses(handle, links, addressed | wanted | possible)),
        neighbours=frozenset(_neighbours(handle, links, of_vxlans)),
        forwards=frozenset(_forwards(handle, links, of_vxlans)),
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
    asked = _of_links(handle, links, names, entries.dump_addresses, entries.decode_address)
    return (Address(name, interface) for name, (_, interface) in asked)


def _neighbours(handle: Handle, links: Mapping[str, Link], names: set[str]) -> Iterable[Neighbour]:
    asked = _of_links(handle, links, names, entries.dump_neighbours, entries.decode_neighbour)
    return (Neighbour(name, address, mac) for name, (_, address, mac) in asked)


def _forwards(handle: Handle, links: Mapping[str, Link], names: set[str]) -> Iterable[Forward]:
    asked = _of_links(handle, links, names, entries.dump_forwards, entries.decode_forward)
    return (Forward(name, mac, remote) for name, (_, mac, remote) in asked)


def _of_links(
    handle: Handle,
    links: Mapping[str, Link],
    names: set[str],
    request: Callable[[int], Message],
    decode: Callable[[Message], Entry | None],
) -> Iterable[tuple[str, Entry]]:
    """Dump what belongs to links; an older kernel sends that of others too."""
    for name in names & links.keys():
        index = links[name].index
        for message in handle.dump_of(request(index)):
            found = decode(message)
            if found is not None and found[0] == index:
                yield name, found


def _routes(handle: Handle, desired: Desired) -> Iterable[entries.RouteEntry]:
    for version in sorted({network.version for network in desired.networks}):
        for protocol in _PROTOCOLS:
            for message in handle.dump_of(entries.dump_routes(version, protocol)):
                found = entries.decode_route(message)
                if found is not None and found.protocol == protocol:
                    yield found

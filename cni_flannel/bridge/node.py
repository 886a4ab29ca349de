"""What the node looks like before an ADD, as far as the plan needs to know.  Reads, never writes.

``observe`` asks for single links by name and for one link's addresses; it lists ports and routes
only in the rare cases that need them.
Imports: ``netlink``, the protocol package.
"""

from __future__ import annotations

from netlink import rtnl, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.cidr import Prefix
    from cni_flannel.bridge.conf import BridgeConf
    from netlink.handle import Handle
    from netlink.link import Link

_RTPROT_RA = 9  # linux/rtnetlink.h: a route learned from a router advertisement


class Node:
    """The bridge, the link that carries the gateway addresses, and the forwarding switches.

    ``bridge`` and ``holder`` are None while missing (without a VLAN they are the same link);
    ``addresses`` are the holder's; ``ports`` are the names of the bridge's ports, listed only
    when an address is in the way; ``forwarding`` maps a family to whether it is on;
    ``ra_uplinks`` are links with a default route from router advertisements and accept_ra 1.
    """

    __slots__ = (
        "addresses",
        "bridge",
        "forwarding",
        "hears_ra",
        "holder",
        "ports",
        "ra_uplinks",
    )

    def __init__(self) -> None:
        self.bridge: Link | None = None
        self.holder: Link | None = None
        self.addresses: list[Prefix] = []
        self.ports: list[str] = []
        self.forwarding: dict[int, bool] = {}
        self.ra_uplinks: list[str] = []
        self.hears_ra = False


def observe(host: Handle, conf: BridgeConf, gateways: list[Prefix]) -> Node:
    """Read what an attachment with these gateway addresses depends on."""
    node = Node()
    node.bridge = host.get_link(conf.bridge)
    if node.bridge is not None:
        node.hears_ra = sysctl.read(accept_ra_switch(conf.bridge)) not in (None, "0")
    holder = conf.gateway_holder
    node.holder = node.bridge if holder == conf.bridge else host.get_link(holder)
    if not gateways:
        return node
    if node.holder is not None:
        node.addresses = [found.prefix for found in host.addresses(node.holder.index)]
    if node.bridge is not None and any(in_the_way(node.addresses, g) for g in gateways):
        node.ports = [link.name for link in host.links(master=node.bridge.index)]
    for family in {gateway.family for gateway in gateways}:
        node.forwarding[family] = sysctl.read(forwarding_switch(family)) == "1"
    if node.forwarding.get(6) is False:
        node.ra_uplinks = _ra_uplinks(host)
    return node


def in_the_way(addresses: list[Prefix], gateway: Prefix) -> list[Prefix]:
    """The addresses that Go's plugin refuses to have beside ``gateway``.

    None if the gateway is there already; else any other of IPv4, overlapping ones of IPv6.
    """
    if gateway in addresses:
        return []
    return [
        address
        for address in addresses
        if address.family == gateway.family and (address.family == 4 or address.overlaps(gateway))
    ]


def forwarding_switch(family: int) -> str:
    """The sysctl that lets the host forward packets of a family."""
    return "net/ipv4/ip_forward" if family == 4 else "net/ipv6/conf/all/forwarding"


def accept_ra_switch(name: str) -> str:
    """The sysctl that lets the host take routes from router advertisements on a link."""
    return f"net/ipv6/conf/{name}/accept_ra"


def _ra_uplinks(host: Handle) -> list[str]:
    """Links whose IPv6 default route came with a router advertisement and would be lost.

    With forwarding on, the kernel takes router advertisements only where accept_ra is 2
    (Documentation/networking/ip-sysctl.rst).
    """
    indexes = {
        route.index
        for route in host.routes(6, table=rtnl.RT_TABLE_MAIN)
        if route.dst.length == 0 and route.protocol == _RTPROT_RA
    }
    links = (host.get_link(index) for index in sorted(indexes))
    names = [link.name for link in links if link is not None]
    return [name for name in names if sysctl.read(accept_ra_switch(name)) == "1"]

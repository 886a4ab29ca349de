"""What the node looks like before an ADD, as far as the plan needs to know.  Reads, never writes.

``observe`` asks for single links by name and for one link's addresses; it lists ports and routes
only in the rare cases that need them.

A bridge is ours if its alias says so, or if it has no alias, the configuration makes it a gateway,
and it has no addresses but that gateway's: so Go's plugin leaves it.  Either way it has no ports
but ours.  Every other bridge belongs to the host.
Imports: ``netlink``, the protocol package.
"""

from __future__ import annotations

from cni import attachment, cidr
from cni_flannel.bridge import links
from netlink import rtnl, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.cidr import Prefix
    from cni_flannel.bridge.conf import BridgeConf
    from netlink.handle import Handle
    from netlink.link import Link

_RTPROT_RA = 9  # linux/rtnetlink.h: a route learned from a router advertisement
_LINK_LOCAL = cidr.parse_prefix("fe80::/10")


class Node:
    """The bridge, the link that carries the gateway addresses, and the switches.

    ``bridge`` and ``holder`` are None while missing (without a VLAN they are the same link);
    ``addresses`` are the holder's; ``ports`` are the names of the bridge's ports, listed only
    when an address is in the way; ``forwarding`` maps a family to whether it is on, or to None in
    a kernel without that family; ``ipv6_off`` says that the holder has, or would get, no IPv6
    addresses; ``ra_uplinks`` are links that live from router advertisements and have accept_ra 1.
    """

    __slots__ = (
        "_is_ours",
        "addresses",
        "bridge",
        "forwarding",
        "hears_ra",
        "holder",
        "ipv6_off",
        "ports",
        "ra_uplinks",
    )

    def __init__(self, is_ours: Callable[[], bool] = lambda: False) -> None:
        self._is_ours = is_ours
        self.bridge: Link | None = None
        self.holder: Link | None = None
        self.addresses: list[Prefix] = []
        self.ports: list[str] = []
        self.forwarding: dict[int, bool | None] = {}
        self.ipv6_off = False
        self.ra_uplinks: list[str] = []
        self.hears_ra = False

    @property
    def is_ours(self) -> bool:
        """Whether the bridge is provably ours. Asks the kernel, as most plans need not know."""
        return self._is_ours()


def observe(host: Handle, conf: BridgeConf, gateways: list[Prefix]) -> Node:
    """Read what an attachment with these gateway addresses depends on."""
    node = Node(lambda: _is_ours(host, conf, node, gateways))
    node.bridge = host.get_link(conf.bridge)
    if node.bridge is not None:
        node.hears_ra = sysctl.read(accept_ra_switch(conf.bridge)) not in (None, "0")
    holder = conf.gateway_holder
    node.holder = node.bridge if holder == conf.bridge else host.get_link(holder)
    if node.holder is not None and (gateways or conf.is_small):
        node.addresses = [found.prefix for found in host.addresses(node.holder.index)]
    if node.bridge is not None and any(in_the_way(node.addresses, g) for g in gateways):
        node.ports = [link.name for link in host.links(master=node.bridge.index)]
    for family in {gateway.family for gateway in gateways}:
        value = sysctl.read(forwarding_switch(family))
        node.forwarding[family] = None if value is None else value == "1"
    if 6 in node.forwarding:
        at = "default" if node.holder is None else holder
        node.ipv6_off = sysctl.read(ipv6_switch(at)) == "1"
        if not node.forwarding[6]:
            node.ra_uplinks = _ra_uplinks(host)
    return node


def _is_ours(host: Handle, conf: BridgeConf, node: Node, gateways: list[Prefix]) -> bool:
    bridge = node.bridge
    if bridge is None:
        return True  # it will be
    if bridge.alias != attachment.BRIDGE_ALIAS:
        if bridge.alias or not conf.is_gateway:
            return False
        found = [found.prefix for found in host.addresses(bridge.index)]
        if any(one not in gateways and not is_link_local(one) for one in found):
            return False
    own = links.gateway_port_name(conf.gateway_holder)
    ports = host.links(master=bridge.index)
    return all(port.name == own or links.is_of_pod(port) for port in ports)


def in_the_way(addresses: list[Prefix], gateway: Prefix) -> list[Prefix]:
    """The addresses that Go's plugin refuses to have beside ``gateway``.

    None if the gateway is there already; else any other of IPv4, overlapping ones of IPv6.  The
    link-local ones of IPv6 are in nobody's way.
    """
    if gateway in addresses:
        return []
    return [
        address
        for address in addresses
        if address.family == gateway.family
        and (address.family == 4 or (address.overlaps(gateway) and not is_link_local(address)))
    ]


def is_link_local(prefix: Prefix) -> bool:
    """Whether it is an address of IPv6 that every link has of itself (RFC 4291, 2.5.6)."""
    return _LINK_LOCAL.contains(prefix.address)


def forwarding_switch(family: int) -> str:
    """The sysctl that lets the host forward packets of a family."""
    return "net/ipv4/ip_forward" if family == 4 else "net/ipv6/conf/all/forwarding"


def ipv6_switch(name: str) -> str:
    """The sysctl that keeps IPv6 from a link, or from those made later ("default")."""
    return f"net/ipv6/conf/{name}/disable_ipv6"


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

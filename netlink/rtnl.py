"""rtnetlink as one vocabulary: every request and every answer of its five parts.

``link`` reads interfaces and ``link_setup`` makes them, ``inet`` has addresses and routes,
``neighbour`` neighbours, ``port`` the VLANs of bridge ports. Users write
``rtnl.new_veth(...)`` and need not know which part has it.
"""

from __future__ import annotations

from netlink.inet import (
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_TENTATIVE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    InterfaceAddress,
    Route,
    del_address,
    del_route,
    dump_addresses,
    dump_routes,
    new_address,
    new_route,
)
from netlink.link import (
    BR_STATE_FORWARDING,
    IF_OPER_UP,
    IFF_PROMISC,
    IFF_UP,
    Link,
    Port,
    decode_nsid,
    dump_links,
    end_of,
    get_link,
    get_nsid,
    group_of,
    mac_bytes,
    paired,
)
from netlink.link_setup import (
    del_group,
    del_link,
    new_bridge,
    new_veth,
    new_vlan,
    set_link,
    set_port,
)
from netlink.neighbour import (
    NUD_NONE,
    NUD_PERMANENT,
    NUD_REACHABLE,
    NUD_STALE,
    Neighbour,
    del_neighbour,
    dump_neighbours,
    replace_neighbour,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netlink.port import PortVLAN, add_port_vlan, del_port_vlan, dump_port_vlans

__all__ = [
    "BR_STATE_FORWARDING",
    "IFA_F_DADFAILED",
    "IFA_F_NODAD",
    "IFA_F_TENTATIVE",
    "IFF_PROMISC",
    "IFF_UP",
    "IF_OPER_UP",
    "NUD_NONE",
    "NUD_PERMANENT",
    "NUD_REACHABLE",
    "NUD_STALE",
    "RT_SCOPE_LINK",
    "RT_SCOPE_UNIVERSE",
    "RT_TABLE_MAIN",
    "InterfaceAddress",
    "Link",
    "Neighbour",
    "Port",
    "PortVLAN",
    "Route",
    "add_port_vlan",
    "decode_nsid",
    "del_address",
    "del_group",
    "del_link",
    "del_neighbour",
    "del_port_vlan",
    "del_route",
    "dump_addresses",
    "dump_links",
    "dump_neighbours",
    "dump_port_vlans",
    "dump_routes",
    "end_of",
    "get_link",
    "get_nsid",
    "group_of",
    "mac_bytes",
    "new_address",
    "new_bridge",
    "new_route",
    "new_veth",
    "new_vlan",
    "paired",
    "replace_neighbour",
    "set_link",
    "set_port",
]

if not TYPE_CHECKING:  # a checker knows the names, and must tell others

    def __getattr__(name: str) -> object:
        """Load ``port`` when one of its names is first used: few pods have VLANs."""
        from netlink import port

        if name not in {"PortVLAN", "add_port_vlan", "del_port_vlan", "dump_port_vlans"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(port, name)

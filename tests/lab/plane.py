"""What a node's kernel holds of the data plane, as iproute2, iptables and nft see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.node import Node

_RULES = """
for family in iptables ip6tables; do $family-save -t nat; $family-save -t filter; done 2>/dev/null
nft list table ip flannel-ipv4 2>/dev/null || true
nft list table ip6 flannel-ipv6 2>/dev/null || true
"""


def plane(node: Node) -> frozenset[str]:
    """Give every device, address, route, neighbour and FDB entry of the daemon, each as a line."""
    devices = [link for link in node.ip("link") if link["ifname"].startswith("flannel")]
    names = {link["ifname"] for link in devices}
    found = {
        f"link {link['ifname']} {link.get('address')} {link['mtu']} {'UP' in link['flags']}"
        for link in devices
    }
    for link in node.ip("address"):
        if link["ifname"] in names:
            found |= {
                f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
                for address in link["addr_info"]
                if address["scope"] != "link"
            }
    for family in ("-4", "-6"):
        for route in node.ip(family, "route", "show", "table", "main"):
            # The kernel's own routes come with addresses; cni0's are the plugin's.
            if route["dst"].startswith(("10.244.", "fd00:f1:")) and route["protocol"] != "kernel":
                found.add(f"route {route['dst']} {route.get('gateway')} {route['dev']}")
    for entry in node.ip("neighbour", "show", "nud", "permanent"):
        if entry["dev"] in names:
            found.add(f"neighbour {entry['dst']} {entry['lladdr']} {entry['dev']}")
    for name in names:
        text = node.run("bridge", "-j", "fdb", "show", "dev", name, check=False).stdout
        found |= {f"fdb {entry['mac']} {entry['dst']}" for entry in json.loads(text or "[]")}
    return frozenset(found)


def rules(node: Node) -> list[str]:
    """Give the daemon's rules of iptables or nftables, in their order, without counters."""
    found, ours = [], False
    for line in node.sh(_RULES).splitlines():
        ours = "flannel-ipv" in line if line.startswith("table") else ours
        if ours or "FLANNEL-" in line:
            found.append(line.partition("[")[0].strip())
    return found

"""What an attachment looks like from outside, as a flat table that two plugins can be compared by.

Keys are sentences such as "pod eth0 mtu" or "host route dst 10.88.1.0/24 dev bridge ...".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.kernel.attaching import leases, rules, sysctl

if TYPE_CHECKING:
    from tests.kernel.conftest import Node


def state(node: Node, result: dict[str, Any], bridge: str, keep: str) -> dict[str, Any]:
    """Return all that an ADD brought about, flat, with names that both plugins share.

    ``keep`` is a MAC that somebody asked for: any other is random and only shows as there.
    """
    veths = [name for name in node.links() if name.startswith("veth")]
    names = dict.fromkeys(veths, "veth")
    names[bridge] = "bridge"
    seen: dict[str, Any] = {}
    for side, pod in (("host", None), ("pod", "p1")):
        for name, link in node.links(pod).items():
            where = f"{side} {names.get(name, name)}"
            seen |= {f"{where} {key}": value for key, value in properties(link, names).items()}
            seen |= {f"{where} {key}": value for key, value in switches(node, name, pod).items()}
        seen |= addresses(node, side, pod, names)
        for family in (4, 6):
            for route in node.routes(pod, family=family, table="all"):
                if not str(route["dst"]).startswith(("fe80:", "ff00:", "multicast")):
                    seen[f"{side} route {describe(route, names)}"] = True
    # The kernel tells of carrier when it finds time, of a bridge's up to a second late. Go's plugin
    # waits for the veth's; a port forwards before that, which is compared.
    seen["host bridge flags"] = [f for f in seen["host bridge flags"] if f != "NO-CARRIER"]
    for name in ("bridge", "veth"):
        del seen[f"host {name} operstate"]
    for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        seen[f"host {path}"] = sysctl(node, path)
    mac = node.links("p1")["eth0"]["address"]
    seen["host rules"] = sorted(
        rule.replace(veths[0], "veth").replace(mac, "MAC") for rule in rules(node)
    )
    seen["host neighbours"] = [
        (entry["dst"], entry["dev"])
        for entry in node.neighbours()
        if {"PERMANENT", "REACHABLE"}.intersection(entry.get("state", []))
    ]
    seen["leases"] = leases(node)
    seen["result dns"] = result.pop("dns", {})
    seen["result"] = anonymous(result, names, keep)
    return seen


def properties(link: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    info = link.get("linkinfo", {})
    port = info.get("info_slave_data", {})
    bridge = info.get("info_data", {}) if info.get("info_kind") == "bridge" else {}
    return {
        "flags": sorted(link["flags"]),
        "kind": info.get("info_kind"),
        "master": names.get(link.get("master", ""), link.get("master")),
        **{key: link.get(key) for key in ("mtu", "operstate", "txqlen", "promiscuity", "ifalias")},
        **{
            f"port {key}": port.get(key)
            for key in ("state", "hairpin", "isolated", "learning", "flood", "cost", "locked")
        },
        **{
            f"bridge {key}": bridge.get(key)
            for key in ("stp_state", "vlan_filtering", "ageing_time", "mcast_snooping", "priority")
        },
    }


def switches(node: Node, name: str, pod: str | None) -> dict[str, str]:
    """Return the switches of a link in both families, and how it came by its MAC."""
    script = (
        f"cd /proc/sys/net; grep -s . ipv4/conf/{name}/* ipv6/conf/{name}/*;"
        f" echo addr_assign_type:$(cat /sys/class/net/{name}/addr_assign_type)"
    )
    argv = ["sh", "-c", script]
    text = (node.run(argv) if pod is None else node.pod_run(pod, argv)).stdout
    found = dict(line.split(":", 1) for line in text.splitlines())
    return {key.replace(f"conf/{name}/", ""): value for key, value in found.items()}


def addresses(node: Node, side: str, pod: str | None, names: dict[str, str]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for link in node.ip("address", "show", pod=pod):
        for one in link.get("addr_info", []):
            if one["family"] == "inet6" and one["scope"] == "link":
                continue
            text = f"{one['local']}/{one['prefixlen']}"
            where = f"{side} {names.get(link['ifname'], link['ifname'])}"
            seen[f"{where} address {text}"] = (one["scope"], one.get("broadcast"))
            seen[f"{where} nodad {text}"] = one.get("nodad", False)
            seen[f"{where} tentative {text}"] = one.get("tentative", False)
    return seen


def describe(route: dict[str, Any], names: dict[str, str]) -> str:
    keys = ("dst", "gateway", "dev", "table", "protocol", "scope", "metric", "prefsrc", "type")
    values = {key: route.get(key) for key in keys}
    values["dev"] = names.get(str(values["dev"]), values["dev"])
    return " ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def anonymous(result: dict[str, Any], names: dict[str, str], keep: str) -> dict[str, Any]:
    """Return the result without MACs, which are random, but with whether there are any."""
    kept = {**result, "interfaces": []}
    for interface in result.get("interfaces", []):
        named = {**interface, "name": names.get(interface["name"], interface["name"])}
        named.pop("mtu", None)  # Go's plugin never says
        if named["mac"] != keep:
            named["mac"] = bool(re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", named["mac"]))
        kept["interfaces"].append(named)
    return kept

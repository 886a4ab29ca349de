"""What the kernel and the files of a world hold, as plain comparable values, read through pyroute2.

`read_space` is one network namespace, `read_state` the whole world: host, pods, packet filter,
files, processes. `difference` tells two such values apart in sentences of one line. A namespace is
entered by the calling thread alone, for the time of the reading.
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from netaddr import IPNetwork
from pyroute2 import IPRoute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from conformance.world import World

CLONE_NEWNET = 0x40000000
IFF_UP, IFF_PROMISC = 0x1, 0x100
NUD_NAMES = {1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed"}
NUD_NAMES |= {64: "noarp", 128: "permanent"}
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
TABLES = {253: "default", 254: "main", 255: "local"}
RTPROT = {1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra"}
RTN_UNICAST = 1
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 -- a destination

# Switches that CNI plugins turn, of the namespace and of each of its links.
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
LINK_SYSCTLS = (
    "net/ipv4/conf/{}/arp_notify",
    "net/ipv4/conf/{}/route_localnet",
    "net/ipv6/conf/{}/accept_dad",
    "net/ipv6/conf/{}/accept_ra",
    "net/ipv6/conf/{}/disable_ipv6",
    "net/ipv6/conf/{}/enhanced_dad",
    "net/ipv6/conf/{}/keep_addr_on_down",
)
IPTABLES = ("filter", "nat", "mangle", "raw", "security")
FILE_TREES = ("/var/lib", "/run", "/etc/cni")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(namespace: Path | str) -> Iterator[None]:
    """Put the calling thread into a network namespace, and back."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(other)
        finally:
            os.close(other)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def read_space(namespace: Path | str) -> dict[str, Any]:
    """Read one network namespace.

    links: name -> {index kind mac mtu up promisc master alias peer hairpin isolated
    vlan_filtering}; addresses: name -> ["10.1.0.1/24"], link-local IPv6 left out; routes: [{dst gw
    dev table scope metric mtu advmss proto}], unicast ones; neighbours: [{dst mac dev state}],
    noarp left out; sysctls: path -> text.
    """
    with entered(namespace), IPRoute() as kernel:
        raw = list(kernel.get_links())
        names = {message["index"]: message.get("ifname") for message in raw}
        links = {message.get("ifname"): _link(message, names) for message in raw}
        addresses: dict[str, list[str]] = {name: [] for name in links}
        for message in kernel.get_addr():
            if message["index"] not in names:
                continue  # of a link that came after the links were read
            if not (message["family"] == socket.AF_INET6 and message["scope"] == 253):
                local = message.get("local") or message.get("address")
                addresses[names[message["index"]]].append(f"{local}/{message['prefixlen']}")
        return {
            "links": links,
            "addresses": addresses,
            "routes": _routes(kernel, names),
            "neighbours": _neighbours(kernel, names),
            "sysctls": _sysctls(links),
        }


def _link(message: Any, names: dict[int, str]) -> dict[str, Any]:
    """Properties of one link; those that it does not have are left out."""
    kind = _within(message, "IFLA_LINKINFO", "IFLA_INFO_KIND")
    slave = _within(message, "IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND")
    port = _within(message, "IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA") if slave == "bridge" else None
    data = _within(message, "IFLA_LINKINFO", "IFLA_INFO_DATA") if kind == "bridge" else None
    found = {
        "index": message["index"],
        "kind": kind,
        "mac": message.get("address"),
        "mtu": message.get("mtu"),
        "up": bool(message["flags"] & IFF_UP),
        "promisc": bool(message["flags"] & IFF_PROMISC),
        "master": names.get(message.get("master") or 0),
        "alias": message.get("ifalias"),
        "peer": message.get("link"),
    }
    if port is not None:
        found["hairpin"] = bool(_within(port, "IFLA_BRPORT_MODE"))
        found["isolated"] = bool(_within(port, "IFLA_BRPORT_ISOLATED"))
    if data is not None:
        found["vlan_filtering"] = bool(_within(data, "IFLA_BR_VLAN_FILTERING"))
    return {key: value for key, value in found.items() if value is not None}


def _within(message: Any, *names: str) -> Any:
    """Give a nested attribute, or None where one of the levels is missing."""
    for name in names:
        if message is None:
            return None
        message = message.get_attr(name)
    return message


def _routes(kernel: Any, names: dict[int, str]) -> list[dict[str, Any]]:
    """Routes of both families, sorted; only unicast ones that are not link-local."""
    found = []
    for message in [
        *kernel.get_routes(family=socket.AF_INET),
        *kernel.get_routes(family=socket.AF_INET6),
    ]:
        table = message.get("table") or message["table"]
        if message["type"] != RTN_UNICAST or table == 255:
            continue
        route = {
            "dst": f"{message.get('dst') or ANY[message['family']]}/{message['dst_len']}",
            "gw": message.get("gateway"),
            "dev": names.get(message.get("oif") or 0),
            "table": TABLES.get(table, table),
            "scope": SCOPES.get(message["scope"]),
            "proto": RTPROT.get(message["proto"], message["proto"]),
            "metric": message.get("priority"),
        }
        metrics = message.get("metrics")
        if metrics:
            route |= {"mtu": metrics.get("mtu"), "advmss": metrics.get("advmss")}
        dst = IPNetwork(route["dst"])
        if dst.version == 4 or not (dst.ip.is_link_local() or dst.ip.is_multicast()):
            found.append({key: value for key, value in route.items() if value is not None})
    return sorted(found, key=str)


def _neighbours(kernel: Any, names: dict[int, str]) -> list[dict[str, Any]]:
    """Neighbour entries, sorted; multicast and broadcast ones (noarp) left out."""
    found = [
        {
            "dst": message.get("dst"),
            "mac": message.get("lladdr"),
            "dev": names.get(message["ifindex"]),
            "state": NUD_NAMES.get(message["state"], str(message["state"])),
        }
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in kernel.get_neighbours(family=family)
    ]
    kept = [entry for entry in found if entry["state"] != "noarp" and entry["dst"]]
    return sorted(kept, key=str)


def _sysctls(links: Mapping[str, Any]) -> dict[str, str]:
    """Switches of the namespace that the calling thread is in."""
    paths = [*SYSCTLS, *(path.format(name) for name in links for path in LINK_SYSCTLS)]
    found = {}
    for path in paths:
        try:
            with open(f"/proc/sys/{path}", encoding="ascii") as file:
                found[path] = file.read().strip()
        except OSError:
            continue  # a kernel without IPv6
    return found


def read_rules(world: World) -> list[str]:
    """Read every chain and rule of the packet filter, without counters and comments.

    iptables tells its own rules (nft cannot print all of them), nft those of the other tables.
    """
    if not world.run(["nft", "list", "tables"], check=False).stdout.strip():
        return []
    script = "iptables-save; ip6tables-save; nft --stateless list ruleset"
    found = []
    foreign = True
    for line in world.run(["sh", "-c", script], check=False).stdout.splitlines():
        if line.startswith("table "):
            family, table = line.split()[1:3]
            foreign = family not in {"ip", "ip6"} or table not in IPTABLES
        text = line.partition(" [")[0].strip()
        if foreign and text and not text.startswith("#"):
            found.append(text)
    return found


def read_state(world: World, pods: Mapping[str, Path]) -> dict[str, Any]:
    """Read the whole world: host, pods, rules, files (path -> text), processes (command lines)."""
    files = {f"{top}/{name}": text for top in FILE_TREES for name, text in world.files(top).items()}
    return {
        "host": read_space(f"/proc/{world.holder.pid}/ns/net"),
        "pods": {pod: read_space(path) for pod, path in pods.items()},
        "rules": read_rules(world),
        "files": {
            name: content.decode(errors="backslashreplace") for name, content in files.items()
        },
        "processes": world.processes(),
    }


def difference(before: Any, after: Any, path: str = "") -> list[str]:
    """Tell in lines what differs: `host.links.veth1: new: {...}`, `...mtu: 1450 -> 1500`."""
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for key in [*before, *(key for key in after if key not in before)]:
            where = f"{path}.{key}" if path else str(key)
            if key not in after:
                lines.append(f"{where}: gone: {before[key]!r}")
            elif key not in before:
                lines.append(f"{where}: new: {after[key]!r}")
            else:
                lines += difference(before[key], after[key], where)
        return lines
    if isinstance(before, list) and isinstance(after, list):
        gone = _without(before, after)
        new = _without(after, before)
        return [f"{path}: gone: {item!r}" for item in gone] + [
            f"{path}: new: {item!r}" for item in new
        ]
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def _without(items: list[Any], others: list[Any]) -> list[Any]:
    """Items that the others do not hold, counted."""
    rest = list(others)
    left = []
    for item in items:
        if item in rest:
            rest.remove(item)
        else:
            left.append(item)
    return left

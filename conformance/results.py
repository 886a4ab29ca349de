"""Results of ADD in any version: the rules that hold for all of them, and one neutral shape.

Neutral is the shape of 1.0.0, whatever the version: {interfaces, ips: [{address, gateway, ...}],
routes, dns}; cases ask in it, so that one case holds in every version.
"""

from __future__ import annotations

from typing import Any

from netaddr import AddrFormatError, IPAddress, IPNetwork

OLD = ("0.1.0", "0.2.0")


def neutral(document: dict[str, Any]) -> dict[str, Any]:
    """Give a result of any version in the neutral shape, its unknown keys kept."""
    found = {key: value for key, value in document.items() if key not in {"ip4", "ip6"}}
    if "ip4" in document or "ip6" in document:
        parts = [document[key] for key in ("ip4", "ip6") if key in document]
        found["ips"] = [
            {"address" if key == "ip" else key: value for key, value in part.items()}
            for part in parts
        ]
        found["routes"] = [route for ip in found["ips"] for route in ip.pop("routes", [])]
    for key in ("interfaces", "ips", "routes"):
        found.setdefault(key, [])
    found.setdefault("dns", {})
    return found


def rules(verb: str, document: Any, version: str, step: dict[str, Any]) -> list[str]:
    """Say what is wrong with the stdout of a successful call, whatever the case asks for.

    SPEC section 5: a Success result after ADD, a version result after VERSION, nothing else.
    """
    if verb not in {"ADD", "VERSION"}:
        return [] if document == "" else [f"stdout of {verb} must be empty, seen {document!r}"]
    if not isinstance(document, dict):
        return [f"stdout of {verb} must be a JSON object, seen {document!r}"]
    if verb == "VERSION":
        supported = document.get("supportedVersions")
        return [] if supported else ["a version result has supportedVersions"]
    lines = []
    if "stdin" in step or "cniVersion" in step.get("conf", {}):
        version = str(document.get("cniVersion"))
    if document.get("cniVersion") != version:
        lines.append(f"the result is of version {document.get('cniVersion')!r}, not {version}")
    shape = {"ip4", "ip6"} if version in OLD else {"interfaces", "ips", "routes"}
    other = {"interfaces", "ips", "routes"} if version in OLD else {"ip4", "ip6"}
    lines += [f"{key} does not belong into a result of {version}" for key in other & set(document)]
    if not shape & set(document) and version in OLD:
        lines.append(f"a result of {version} has ip4 or ip6")
    return lines + _of_addresses(neutral(document))


def _of_addresses(result: dict[str, Any]) -> list[str]:
    """Check addresses, gateways, routes and interface indexes of a neutral result."""
    lines = []
    for ip in result["ips"]:
        try:
            address = IPNetwork(ip["address"])
            if "/" not in ip["address"]:
                lines.append(f"an address of a result is in CIDR notation, seen {ip['address']!r}")
            if "gateway" in ip and IPAddress(ip["gateway"]).version != address.version:
                lines.append(f"gateway {ip['gateway']} is not of the family of {ip['address']}")
        except (KeyError, ValueError, AddrFormatError) as error:
            lines.append(f"ips of the result: {error}")
        index = ip.get("interface")
        if index is not None and not 0 <= index < len(result["interfaces"]):
            lines.append(f"ips.interface {index} points at no interface of the result")
    for route in result["routes"]:
        try:
            dst = IPNetwork(route["dst"])
            if dst.ip != dst.network:
                lines.append(f"routes of the result: {dst} has host bits")
        except (KeyError, ValueError, AddrFormatError) as error:
            lines.append(f"routes of the result: {error}")
    return lines

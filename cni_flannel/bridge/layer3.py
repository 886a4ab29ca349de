"""What an attachment gets above layer 2: addresses, gateways, routes.  Pure.

Takes the IPAM plugin's result, fills in what the bridge's configuration implies (a gateway per
address, default routes) and says what belongs on the bridge and what in the container.
The rules are those of Go's bridge plugin.
Imports: the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors
from cni.cidr import Prefix
from cni.errors import CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.cidr import Address
    from cni_flannel.bridge.conf import BridgeConf

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_METRICS = ("mtu", "advmss", "priority", "table", "scope")


class Route:
    """A route of the container; ``metrics`` holds the optional kernel numbers of the result."""

    __slots__ = ("dst", "gw", "metrics")

    def __init__(self, dst: Prefix, gw: Address | None, metrics: dict[str, int]) -> None:
        self.dst = dst
        self.gw = gw
        self.metrics = metrics


class Layer3:
    """Addresses and routes of the container, and the gateway addresses of the bridge.

    ``ips``, ``routes`` and ``dns`` are in the shape of a result; ``addresses``, ``gateways``
    and ``container_routes`` are the same, parsed, for the kernel.
    """

    __slots__ = ("addresses", "container_routes", "dns", "gateways", "ips", "routes")

    def __init__(self, ips: list[dict[str, Any]], routes: list[dict[str, Any]], dns: Any) -> None:
        self.ips = ips
        self.routes = routes
        self.dns = dns
        self.addresses = [_prefix(ip["address"]) for ip in ips]
        self.gateways: list[Prefix] = []
        self.container_routes: list[Route] = []

    @property
    def families(self) -> list[int]:
        """The families there is an address of, without repetition."""
        return [family for family in (4, 6) if any(a.family == family for a in self.addresses)]


def complete(conf: BridgeConf, ipam_result: Mapping[str, Any] | None) -> Layer3:
    """Fill in what the configuration implies; CNIError 105 if the IPAM plugin's result is bad.

    Without IPAM (None) the attachment has no addresses.
    """
    if ipam_result is None:
        return Layer3([], [], {})
    ips = [dict(ip) for ip in ipam_result.get("ips") or []]
    if not ips:
        raise _bad_result("IPAM plugin returned missing IP config")
    routes = [dict(route) for route in ipam_result.get("routes") or []]
    dns = conf.dns if any(conf.dns.values()) else ipam_result.get("dns") or {}
    layer3 = Layer3(ips, routes, dns)
    for ip, address in zip(ips, layer3.addresses, strict=True):
        if conf.is_gateway and not ip.get("gateway"):
            ip["gateway"] = str(address.network.address.succ())
        if conf.is_default_gateway:
            _add_default_route(routes, address.family, ip["gateway"])
        if conf.is_gateway:
            gateway = Prefix(_gateway(ip["gateway"], address.family), address.length)
            layer3.gateways += [] if gateway in layer3.gateways else [gateway]
    layer3.container_routes = [_route(route, ips) for route in routes]
    return layer3


def _add_default_route(routes: list[dict[str, Any]], family: int, gateway: str) -> None:
    default = _DEFAULT[family]
    if not any(route.get("gw") and route.get("dst") == default for route in routes):
        routes.append({"dst": default, "gw": gateway})


def _route(route: dict[str, Any], ips: list[dict[str, Any]]) -> Route:
    """A route without a gateway goes through the first gateway of its family, if there is one."""
    dst = _prefix(route.get("dst"))
    gateways = (_address(ip["gateway"]) for ip in ips if ip.get("gateway"))
    own = (gateway for gateway in gateways if gateway.family == dst.family)
    gw = _gateway(route["gw"], dst.family) if route.get("gw") else next(own, None)
    metrics = {key: route[key] for key in _METRICS if type(route.get(key)) is int}
    return Route(dst.network, gw, metrics)


def _prefix(text: Any) -> Prefix:
    try:
        return cidr.parse_prefix(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise _bad_result(f"IPAM plugin returned an address that is none: {error}") from None


def _address(text: Any) -> Address:
    try:
        return cidr.parse_address(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise _bad_result(f"IPAM plugin returned a gateway that is none: {error}") from None


def _gateway(text: Any, family: int) -> Address:
    gateway = _address(text)
    if gateway.family != family:
        raise _bad_result(f"IPAM plugin returned gateway {gateway} for an IPv{family} network")
    return gateway


def _bad_result(msg: str) -> CNIError:
    return CNIError(errors.DELEGATE_FAILED, msg, "check the 'ipam' section and its plugin")

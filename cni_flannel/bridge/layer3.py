"""What an attachment gets above layer 2: addresses, gateways, routes.  Pure.

Takes the IPAM plugin's result, fills in what the bridge's configuration implies (a gateway per
address, default routes) and says what belongs on the bridge and what in the container.
The rules are those of Go's bridge plugin; beyond them

- a gateway may lie outside of its address's subnet: the pod gets a route to it on the link, and
  the host one to the pod;
- a route comes once, and only in a family of which the pod has an address;
- what the kernel would refuse is refused here, by name.

Imports: the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors
from cni.cidr import Prefix
from cni.errors import CNIError
from cni_flannel.bridge.conf import HOST_LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.cidr import Address
    from cni_flannel.bridge.conf import BridgeConf

_METRICS = ("mtu", "advmss", "priority", "table", "scope")
ROUTE_KEYS = ("dst", "gw", *_METRICS)
MAX_METRIC = 0xFFFFFFFF
_MAIN = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_LINK, _NOWHERE = 253, 255  # RT_SCOPE_*: on the link and narrower, there is no gateway
USUAL_PRIORITY = {4: 0, 6: 1024}  # the priority of a route that names none
_LINK_LOCAL = cidr.parse_prefix("fe80::/10")
_UNUSABLE = [
    (cidr.parse_prefix(text), what)
    for text, what in (
        ("0.0.0.0/32", "no address"),
        ("::/128", "no address"),
        ("127.0.0.0/8", "the loopback's"),
        ("::1/128", "the loopback's"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
    )
]
# Of a pod whose subnet is its own address, where the configuration names none.
_ON_LINK = {4: cidr.parse_address("169.254.1.1"), 6: cidr.parse_address("fe80::1")}


class Route:
    """A route of the container; ``metrics`` holds the optional kernel numbers of the result."""

    __slots__ = ("dst", "gw", "metrics")

    def __init__(self, dst: Prefix, gw: Address | None, metrics: dict[str, int]) -> None:
        self.dst = dst
        self.gw = gw
        self.metrics = metrics

    @property
    def table(self) -> int:
        """The kernel's table that it is in."""
        return self.metrics.get("table") or _MAIN

    @property
    def key(self) -> tuple[Any, ...]:
        """What the kernel has once: destination, way there, table and priority."""
        return (
            self.dst,
            self.gw,
            self.table,
            self.metrics.get("priority") or USUAL_PRIORITY[self.dst.family],
        )


class Layer3:
    """Addresses and routes of the container, gateway addresses of the bridge, routes to the pod.

    ``ips``, ``routes`` and ``dns`` are in the shape of a result; ``addresses``, ``gateways``
    and ``container_routes`` are the same, parsed, for the kernel.  ``host_routes`` are the
    addresses that the bridge's own do not lead to.
    """

    __slots__ = (
        "addresses",
        "container_routes",
        "dns",
        "gateways",
        "host_routes",
        "ips",
        "routes",
    )

    def __init__(self, ips: list[dict[str, Any]], dns: Any) -> None:
        self.ips = ips
        self.dns = dns
        self.addresses = [_usable_prefix(ip.get("address")) for ip in ips]
        for n, address in enumerate(self.addresses):
            if any(one.address == address.address for one in self.addresses[:n]):
                raise ValueError(f"address {address.address} twice")
        self.gateways: list[Prefix] = []
        self.host_routes: list[Prefix] = []
        self.routes: list[dict[str, Any]] = []
        self.container_routes: list[Route] = []

    @property
    def families(self) -> list[int]:
        """The families there is an address of, without repetition."""
        return [family for family in (4, 6) if any(a.family == family for a in self.addresses)]


def complete(conf: BridgeConf, ipam_result: Mapping[str, Any] | None) -> Layer3:
    """Fill in what the configuration implies.

    CNIError if the result cannot be carried out: 7 if that is the configuration's fault, 105 if it
    is an IPAM plugin's of somebody else.  Without IPAM (None) the attachment has no addresses.
    """
    if ipam_result is None:
        return Layer3([], {})
    ips = [dict(ip) for ip in ipam_result.get("ips") or []]
    dns = conf.dns if any(conf.dns.values()) else ipam_result.get("dns") or {}
    try:
        if not ips:
            raise ValueError("missing IP config")
        layer3 = Layer3(ips, dns)
        given = [dict(route) for route in ipam_result.get("routes") or []]
        for ip, address in zip(ips, layer3.addresses, strict=True):
            if conf.is_gateway:
                _serve(layer3, ip, address)
            if conf.is_default_gateway:
                _add_default_route(given, address.family, ip["gateway"])
        _add_routes(layer3, given)
    except ValueError as error:
        if conf.ipam_type == HOST_LOCAL:
            raise CNIError(
                errors.INVALID_NETWORK_CONFIG,
                f"'ipam' gives {error}",
                "correct subnet, gateway or routes of the 'ipam' section",
            ) from None
        raise CNIError(
            errors.DELEGATE_FAILED,
            f"IPAM plugin returned {error}",
            "check the 'ipam' section and its plugin",
        ) from None
    return layer3


def is_link_local(address: Address) -> bool:
    """Whether it is an address of IPv6 that leads no further than the link (RFC 4291, 2.5.6)."""
    return _LINK_LOCAL.contains(address)


def _serve(layer3: Layer3, ip: dict[str, Any], address: Prefix) -> None:
    """Make the bridge the gateway of an address, and see that the host reaches the pod."""
    ip["gateway"] = ip.get("gateway") or str(_unnamed_gateway(address))
    gateway = _usable_gateway(ip["gateway"], address.family)
    length = address.length
    if not _is_beside(gateway, address):
        length = 64 if is_link_local(gateway) else gateway.bits
        layer3.host_routes.append(Prefix(address.address, gateway.bits))
    prefix = Prefix(gateway, length)
    layer3.gateways += [] if prefix in layer3.gateways else [prefix]


def _is_beside(gateway: Address, address: Prefix) -> bool:
    """Whether a gateway is in an address's subnet; ValueError if nobody can have it there."""
    if gateway == address.address:
        raise ValueError(f"gateway {gateway}, which is the pod's own address")
    if gateway.family == 4 and gateway == address.last and address.length < 31:
        raise ValueError(f"gateway {gateway}, which is the broadcast address of {address.network}")
    return address.contains(gateway)


def _unnamed_gateway(address: Prefix) -> Address:
    """The gateway if nobody names one: the subnet's first address, or the other of two."""
    if address.length == address.address.bits:
        return _ON_LINK[address.family]
    first = address.network.address
    two = address.length == address.address.bits - 1
    return first if two and address.address != first else first.succ()


def _add_default_route(routes: list[dict[str, Any]], family: int, gateway: str) -> None:
    """A default route, unless there is one; to one without a gateway comes this one."""
    for route in routes:
        dst = _prefix(route.get("dst"))
        if dst.family == family and dst.length == 0 and route.get("table") in (None, 0, _MAIN):
            if not route.get("gw"):
                route["gw"] = gateway
            return
    routes.append({"dst": "0.0.0.0/0" if family == 4 else "::/0", "gw": gateway})


def _add_routes(layer3: Layer3, given: list[dict[str, Any]]) -> None:
    """Take over every route that the pod can have, once: those on the link before those beyond."""
    families = layer3.families
    found: list[Route] = []
    for shown in given:
        route = _route(shown, layer3.ips)
        if route.dst.family in families and not any(one.key == route.key for one in found):
            found.append(route)
            layer3.routes.append(shown)
    near = [route for route in found if route.gw is None]
    beyond = [route for route in found if route.gw is not None]
    for route in beyond:
        gw = route.gw
        if gw is None or _is_near(gw, route.table, layer3.addresses, [*near, *beyond]):
            continue
        if layer3.gateways and all(gateway.address != gw for gateway in layer3.gateways):
            raise ValueError(
                f"gateway {gw}, which is in no subnet of the pod and not on the bridge"
            )
        near.append(Route(Prefix(gw, gw.bits), None, {}))
    layer3.container_routes = [*near, *beyond]


def _is_near(gateway: Address, table: int, addresses: list[Prefix], routes: list[Route]) -> bool:
    """Whether the kernel knows a gateway to be on the link; ValueError if it is not there."""
    beside = [_is_beside(gateway, address) for address in addresses]
    if any(beside) or is_link_local(gateway):
        return True
    there = [one for one in routes if one.dst.length and one.dst.contains(gateway)]
    if any(one.gw is None and one.table in (_MAIN, table) for one in there):
        return True
    for one in there:
        if one.gw not in (None, gateway):
            raise ValueError(
                f"gateway {gateway}, which lies behind another one ({one.dst} via {one.gw})"
            )
    return False


def _route(route: dict[str, Any], ips: list[dict[str, Any]]) -> Route:
    """A route without a gateway goes through the first gateway of its family, if there is one.

    It does not if its scope says that it is on the link.  Gateway 0.0.0.0 is none.
    """
    dst = _prefix(route.get("dst")).network
    metrics = {key: _metric(key, route[key]) for key in _METRICS if route.get(key) is not None}
    is_near = metrics.get("scope", 0) >= _LINK
    if route.get("gw"):
        gw = _address(route["gw"])
        if gw.value and is_near:
            raise ValueError(f"a route to {dst} with gateway {gw} and scope {metrics['scope']}")
        return Route(dst, _usable_gateway(route["gw"], dst.family) if gw.value else None, metrics)
    known = [] if is_near else [_address(ip["gateway"]) for ip in ips if ip.get("gateway")]
    own = [gateway for gateway in known if gateway.family == dst.family and gateway.value]
    if own:
        _require_usable("gateway", own[0])
    return Route(dst, own[0] if own else None, metrics)


def _metric(key: str, value: Any) -> int:
    limit = _NOWHERE - 1 if key == "scope" else MAX_METRIC
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"a route with {key} {value!r} (must be between 0 and {limit})")
    return value


def _prefix(text: Any) -> Prefix:
    try:
        return cidr.parse_prefix(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"an address that is none: {error}") from None


def _usable_prefix(text: Any) -> Prefix:
    prefix = _prefix(text)
    _require_usable("address", prefix.address)
    return prefix


def _address(text: Any) -> Address:
    try:
        return cidr.parse_address(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"a gateway that is none: {error}") from None


def _usable_gateway(text: Any, family: int) -> Address:
    gateway = _address(text)
    if gateway.family != family:
        raise ValueError(f"gateway {gateway} for an IPv{family} network")
    _require_usable("gateway", gateway)
    return gateway


def _require_usable(what: str, address: Address) -> None:
    for prefix, why in _UNUSABLE:
        if prefix.contains(address):
            raise ValueError(f"{what} {address}, which is {why}")

"""What an ADD asks for: range sets, wanted addresses, routes.  Pure.

Read from the conf and CNI_ARGS. Defaults, their order and the wording of errors follow the
reference plugin's `LoadIPAMConfig`; beyond it stand `subnetFile` and `exclude`. Wrong conf is
code 7 and names key and value. Reading subnet.env is the caller's affair: it comes in as a value.
"""

from __future__ import annotations

from cni import cniargs
from cni.cidr import parse_address, parse_prefix
from cni.errors import INVALID_ENVIRONMENT, CNIError
from cni.wire import canonical, dumps
from ipam.allocator import capacity
from ipam.conf import object_at, string_at, wrong
from ipam.ranges import read_exclude, read_range, read_set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.cidr import Address, Prefix
    from cni.types import Route
    from ipam.conf import Conf
    from ipam.ranges import RangeSet
    from ipam.subnet_env import SubnetEnv

_ROUTE = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
_ONE_ADDRESS_A_FAMILY = ("", "0.1.0", "0.2.0")
_LEGACY = ("subnet", "rangeStart", "rangeEnd", "gateway")  # a single range, of the ipam object
_CNI_ARGS = ("IP", "MAC", "GATEWAY")  # shared by the plugins of a pair


class Request:
    """What ADD asks for beyond `Conf`: range sets, wanted addresses, routes, the resolv.conf."""

    __slots__ = ("range_sets", "resolv_conf", "routes", "wanted")

    def __init__(
        self,
        range_sets: list[RangeSet],
        wanted: list[Address],
        routes: list[Route],
        resolv_conf: str,
    ) -> None:
        self.range_sets = range_sets
        self.wanted = wanted
        self.routes = routes
        self.resolv_conf = resolv_conf


def read_request(conf: Conf, cni_args: str, load_node: Callable[[], SubnetEnv]) -> Request:
    """Read the whole conf of an ADD; `load_node` gives the node's subnets when they are wanted."""
    if "ipam" not in conf.net:
        raise wrong("IPAM config missing 'ipam' key")
    wanted = _wanted(conf.net, cni_args)
    return Request(
        read_range_sets(conf, load_node),
        wanted,
        _routes(conf.ipam),
        string_at(conf.ipam, "resolvConf", "ipam.resolvConf"),
    )


def read_range_sets(conf: Conf, load_node: Callable[[], SubnetEnv]) -> list[RangeSet]:
    """Read every range set, in the order in which last_reserved_ip.N counts them."""
    ipam = conf.ipam
    raw = _runtime_sets(conf.net)
    if ipam.get("subnet"):
        raw.append([{key: ipam[key] for key in _LEGACY if key in ipam}])
    raw += _raw_sets("ipam.ranges", ipam.get("ranges", []))
    if not raw and conf.subnet_file:
        raw = _node_sets(ipam, load_node())
    if not raw:
        raise wrong("no IP ranges specified", "set ipam.ranges, ipam.subnet or ipam.subnetFile")
    try:
        exclude = read_exclude(ipam)
    except ValueError as error:
        raise wrong(f"ipam.exclude: {error}") from None
    sets = [_range_set(index, ranges, exclude) for index, ranges in enumerate(raw)]
    _check_sets(sets, conf.net.get("cniVersion", ""))
    return sets


def _range_set(index: int, raw: list[Any], exclude: tuple[Prefix, ...]) -> RangeSet:
    try:
        return read_set([read_range(one, exclude) for one in raw])
    except ValueError as error:
        raise wrong(f"invalid range set {index}: {error}") from None


def _check_sets(sets: list[RangeSet], version: Any) -> None:
    """Refuse sets that overlap or are empty, and two addresses of a family for old runtimes.

    No set gives a gateway of any: the pod would have the bridge's own address.
    """
    families = [one.family for one in sets]
    if version in _ONE_ADDRESS_A_FAMILY and len(set(families)) < len(families):
        raise wrong(f"CNI version {version} does not support more than 1 address per family")
    for index, one in enumerate(sets):
        for other in range(index + 1, len(sets)):
            if one.overlaps(sets[other]):
                raise wrong(f"range set {index} overlaps with {other}")
    gateways = {gateway for one in sets for gateway in one.gateways}
    for index, one in enumerate(sets):
        one.gateways = gateways
        if not capacity(one):
            raise wrong(
                f"invalid range set {index}: {one} has no address to give: gateway and exclude "
                "take them all"
            )


def _raw_sets(key: str, value: Any) -> list[list[Any]]:
    """Check that ranges are a list of lists; what the lists hold is read later."""
    if not isinstance(value, list) or not all(isinstance(one, list) for one in value):
        raise wrong(f"{key} {dumps(value)} is not a list of lists of ranges")
    return list(value)


def _runtime_sets(net: dict[str, Any]) -> list[list[Any]]:
    """Read runtimeConfig.ipRanges, a list of lists, or containerd's flat list of ranges.

    A flat list gives one set a family: a pod gets one address of each.
    """
    runtime = canonical(object_at(net, "runtimeConfig"), ("ips", "ipRanges"))
    value = runtime.get("ipRanges", [])
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        families: dict[bool, list[Any]] = {}
        for one in value:
            subnet = canonical(one, ("subnet",)).get("subnet")
            families.setdefault(":" in str(subnet), []).append(one)
        return list(families.values())
    return _raw_sets("runtimeConfig.ipRanges", value)


def _node_sets(ipam: dict[str, Any], node: SubnetEnv) -> list[list[Any]]:
    """Make a set of each of the node's subnets, narrowed by the ipam object's own keys.

    rangeStart, rangeEnd and gateway apply to the subnet of their family.
    """
    sets: list[list[Any]] = []
    for subnet in (node.subnet, node.ipv6_subnet):
        if subnet is None:
            continue
        one = {"subnet": str(subnet)}
        for key in ("rangeStart", "rangeEnd", "gateway"):
            text = string_at(ipam, key, f"ipam.{key}")
            if text and (":" in text) == (subnet.family == 6):
                one[key] = text
        sets.append([one])
    return sets


def _wanted(net: dict[str, Any], cni_args: str) -> list[Address]:
    """Collect the requested addresses; each is an address or a CIDR whose length is ignored."""
    wanted: list[Address] = []
    text = cniargs.parse(cni_args, _CNI_ARGS).get("IP", "")
    if text:
        try:
            wanted.append(_without_length(text))
        except ValueError as error:
            raise CNIError(
                INVALID_ENVIRONMENT,
                f"ARGS: error parsing value of pair {dumps('IP=' + text)}: {error}",
            ) from None
    for_cni = canonical(object_at(canonical(object_at(net, "args"), ("cni",)), "cni"), ("ips",))
    runtime = canonical(object_at(net, "runtimeConfig"), ("ips", "ipRanges"))
    for key, value in (
        ("args.cni.ips", for_cni.get("ips", [])),
        ("runtimeConfig.ips", runtime.get("ips", [])),
    ):
        if not isinstance(value, list):
            raise wrong(f"{key} {dumps(value)} is not a list of addresses")
        for one in value:
            try:
                wanted.append(_without_length(one))
            except ValueError as error:
                raise wrong(f"{key}: cannot understand ip: {error}") from None
    return list(dict.fromkeys(wanted))


def _without_length(text: Any) -> Address:
    if not isinstance(text, str):
        raise ValueError(f"{dumps(text)} is not a string")  # noqa: TRY004 - a value of the conf
    return parse_prefix(text).address if "/" in text else parse_address(text)


def _routes(ipam: dict[str, Any]) -> list[Route]:
    """Check the conf's routes and give them back in the result's spelling."""
    value = ipam.get("routes", [])
    if not isinstance(value, list):
        raise wrong(f"ipam.routes {dumps(value)} is not a list")
    return [_route(one) for one in value]


def _route(obj: Any) -> Route:
    if not isinstance(obj, dict):
        raise wrong(f"ipam.routes holds {dumps(obj)}, which is not an object")
    obj = canonical(obj, _ROUTE)
    try:
        route: Route = {"dst": str(parse_prefix(string_at(obj, "dst", "ipam.routes dst")))}
        gateway = string_at(obj, "gw", "ipam.routes gw")
        if gateway:
            route["gw"] = str(parse_address(gateway))
    except ValueError as error:
        raise wrong(f"ipam.routes: {error}") from None
    for key in ("mtu", "advmss", "priority", "table", "scope"):
        number = obj.get(key)
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise wrong(f"ipam.routes {key} {dumps(number)} is not a whole number")
        if number or key in ("table", "scope"):  # for the others 0 is "not set"
            route[key] = number
    return route

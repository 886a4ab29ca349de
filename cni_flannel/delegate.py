"""From a ``flannel`` configuration and the node's subnet to the delegate's configuration.  Pure.

Knows which keys flannel sets, which it fills in only when the user did not, and how the node's
subnet becomes ranges and routes of the delegate's ``ipam``.  Does no I/O.

The rules are those of the Go plugin, with two additions: ``args`` and ``dns`` reach the delegate,
and ``rangeStart``, ``rangeEnd``, ``gateway`` and ``exclude`` of the user's ``ipam`` narrow the
node's range instead of being lost.
Imports: the protocol package, ``netconf``.
"""

from __future__ import annotations

from cni import cidr, wire
from cni_flannel.netconf import invalid, is_sound, require_mtu, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.cidr import Prefix
    from cni_flannel.netconf import NetConf
    from ipam.subnet_env import SubnetEnv

BRIDGE = "bridge"
HOST_LOCAL = "host-local"
MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_RESERVED = ("name", "ipam")  # of ``delegate``: flannel sets them
_RANGE_KEYS = ("rangeStart", "rangeEnd", "gateway", "exclude")


def build(net_conf: NetConf, env: SubnetEnv) -> dict[str, Any]:
    """The complete configuration for the delegate's ADD; CNIError 7 names what is wrong."""
    _require_free_keys(net_conf.delegate)
    conf = _base(net_conf, net_conf.delegate)
    conf.setdefault("ipMasq", not env.ip_masq)
    mtu = conf.setdefault("mtu", env.mtu)
    if type(mtu) is int:
        subnet = env.ipv6_subnet
        require_mtu(mtu, "" if subnet is None else f"the node's subnet is {subnet.network}")
    conf["ipam"] = _ipam(net_conf.ipam, env)
    return conf


def rebuild(net_conf: NetConf) -> dict[str, Any]:
    """The configuration for a DEL when neither state file nor ``subnet.env`` is left.

    Carries no ranges: host-local finds the attachment's leases without them.  Judges nothing:
    what ADD would refuse is left out.
    """
    user = {key: value for key, value in net_conf.delegate.items() if key not in _RESERVED}
    ipam = dict(net_conf.ipam)
    for conf, usual in ((user, BRIDGE), (ipam, HOST_LOCAL)):
        if not (is_sound(conf, "type", str) and conf["type"]):
            conf["type"] = usual
    _take_limits(ipam)
    return {**_base(net_conf, user), "ipam": ipam}


def renew(stored: dict[str, Any], net_conf: NetConf) -> dict[str, Any]:
    """A stored delegate configuration with what the runtime says anew on this call.

    The result of the earlier ADD is in the version of the present configuration, so this
    ``cniVersion`` goes with it.
    """
    conf = dict(stored)
    if net_conf.cni_version:
        conf["cniVersion"] = net_conf.cni_version
    anew = {"prevResult": net_conf.prev_result, "runtimeConfig": net_conf.runtime_config}
    conf.update((key, value) for key, value in anew.items() if value is not None)
    return conf


def with_gateways(prev_result: Any) -> Any:
    """A result whose routes name the gateway that they go through, for a foreign plugin's CHECK.

    At ADD the plugins of containernetworking send a route without one through the first gateway of
    its family (pkg/ipam/ipam_linux.go, ConfigureIface); at CHECK they look for one without.
    """
    if type(prev_result) is not dict:
        return prev_result
    gateways: dict[int, str] = {}
    for text in _of_each(prev_result, "ips", "gateway"):
        gateways.setdefault(6 if ":" in text else 4, text)
    routes = prev_result.get("routes")
    if type(routes) is not list:
        return prev_result
    return {**prev_result, "routes": [_with_gateway(route, gateways) for route in routes]}


def _with_gateway(route: Any, gateways: dict[int, str]) -> Any:
    if type(route) is not dict or route.get("gw") or type(route.get("dst")) is not str:
        return route
    gateway = gateways.get(6 if ":" in route["dst"] else 4)
    return {**route, "gw": gateway} if gateway else route


def _of_each(result: dict[str, Any], part: str, key: str) -> list[str]:
    items = result.get(part)
    objects = [item for item in items if type(item) is dict] if type(items) is list else []
    return [item[key] for item in objects if type(item.get(key)) is str and item[key]]


def _base(net_conf: NetConf, user: dict[str, Any]) -> dict[str, Any]:
    """The user's ``delegate`` with everything that does not depend on the node's subnet."""
    conf = dict(user)
    conf["name"] = net_conf.name
    if net_conf.cni_version:
        conf["cniVersion"] = net_conf.cni_version
    if conf.setdefault("type", BRIDGE) == BRIDGE:
        conf.setdefault("isGateway", True)
    if net_conf.runtime_config is not None:
        conf["runtimeConfig"] = net_conf.runtime_config
    for key, value in (("args", net_conf.args), ("dns", net_conf.dns)):
        if value is not None:
            conf.setdefault(key, value)
    return conf


def _require_free_keys(delegate: dict[str, Any]) -> None:
    if "type" in delegate and (type(delegate["type"]) is not str or not delegate["type"]):
        raise invalid(
            "'delegate' dictionary, if present, must have (string) 'type' field, "
            f"not {shown(delegate['type'])}"
        )
    for key in _RESERVED:
        if key in delegate:
            raise invalid(
                f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel",
                f"remove {key!r} ({shown(delegate[key])}) from 'delegate'",
            )


def _ipam(user: dict[str, Any], env: SubnetEnv) -> dict[str, Any]:
    """The user's ``ipam`` with the node's ranges and a route to every network."""
    ipam = dict(user)
    if type(ipam.setdefault("type", HOST_LOCAL)) is not str:
        raise invalid(f"parse 'ipam': 'type' must be a string, not {shown(ipam['type'])}")
    if "subnet" in ipam and ipam["type"] == HOST_LOCAL:
        raise invalid(
            f"'ipam' dictionary must not have 'subnet' field ({shown(ipam['subnet'])}), "
            "it'll be set by flannel",
            "remove 'subnet'; to hand out a part of the node's subnet use 'rangeStart', "
            "'rangeEnd' and 'exclude'",
        )
    limits = _take_limits(ipam)
    ipam["ranges"] = [[_range(subnet, limits)] for subnet in _subnets(env)]
    routes = _once(_routes(ipam.get("routes")))
    ipam["routes"] = routes + _to_networks(env, routes)
    _require_used(limits, _subnets(env))
    return ipam


def _take_limits(ipam: dict[str, Any]) -> dict[str, Any]:
    """Move host-local's limits out of its object; another IPAM plugin's keys are its own."""
    if ipam["type"] != HOST_LOCAL:
        return {}
    taken = {key: ipam.pop(key, None) for key in _RANGE_KEYS}
    return {key: value for key, value in taken.items() if value is not None}


def _subnets(env: SubnetEnv) -> list[Prefix]:
    return [subnet for subnet in (env.subnet, env.ipv6_subnet) if subnet is not None]


def _range(subnet: Prefix, limits: dict[str, Any]) -> dict[str, Any]:
    """One host-local range: the node's subnet, narrowed by the limits of its family."""
    found: dict[str, Any] = {"subnet": str(subnet.network)}
    for key, value in limits.items():
        own = [text for text in _texts(key, value) if _family(key, text) == subnet.family]
        if key == "exclude" and own:
            found[key] = own
        elif own:
            found[key] = own[-1]
    return found


def _require_used(limits: dict[str, Any], subnets: list[Prefix]) -> None:
    families = [subnet.family for subnet in subnets]
    for key, value in limits.items():
        for text in _texts(key, value):
            if _family(key, text) not in families:
                raise invalid(f"parse 'ipam': {key!r} {text} is of a family this node has not got")


def _to_networks(env: SubnetEnv, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A route to every network, unless the user has one."""
    own = [network.network for network in (*env.networks, *env.ipv6_networks)]
    given = [dst for dst, table, *_ in map(_identity, routes) if table == MAIN_TABLE]
    return [{"dst": str(network)} for network in dict.fromkeys(own) if network not in given]


def _once(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The routes that the kernel would take one after the other: plugins of others make each."""
    all_of_them = [_identity(route) for route in routes]
    return [route for n, route in enumerate(routes) if all_of_them[n] not in all_of_them[:n]]


def _identity(route: dict[str, Any]) -> tuple[Any, ...]:
    """What the kernel has once: where a route leads to, its table, its gateway, its priority.

    What is none stays as it is: the IPAM plugin says so.
    """
    keys = wire.canonical(route, ("dst", "table", "gw", "priority"))
    dst = keys.get("dst")
    try:
        dst = cidr.parse_prefix(dst).network if type(dst) is str else dst
    except ValueError:
        pass
    return dst, keys.get("table") or MAIN_TABLE, keys.get("gw"), keys.get("priority") or 0


def _texts(key: str, value: Any) -> list[str]:
    """A limit is one text or, for dual-stack, a list of them."""
    texts = value if type(value) is list else [value]
    for text in texts:
        if type(text) is not str:
            raise invalid(f"parse 'ipam': {key!r} must be an address, not {shown(text)}")
    return texts


def _family(key: str, text: str) -> int:
    try:
        return (cidr.parse_prefix if "/" in text else cidr.parse_address)(text).family
    except ValueError as error:
        raise invalid(f"parse 'ipam': {key!r}: {error}") from None


def _routes(routes: Any) -> list[dict[str, Any]]:
    if routes is None:
        return []
    if type(routes) is not list or any(type(route) is not dict for route in routes):
        raise invalid(f"parse 'ipam': 'routes' must be a list of objects, not {shown(routes)}")
    return routes

"""STATUS: would an ADD succeed now?  Asks the kernel for two links; executes nothing of ours.

Imports: the parts of this package, the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors, wire
from cni.errors import CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import layer3, node, plan_node, steps_veth
from cni_flannel.bridge.ends import Ends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.layer3 import Layer3
    from netlink.handle import Handle


def require(args: Args, conf: BridgeConf, ipam: Plugin | None) -> None:
    """CNIError 50 if the bridge is in the way or IPAM has nothing to give."""
    with Ends() as ends:
        try:
            foreseen = _foreseen(conf)
            seen = node.observe(ends.host, conf, foreseen.gateways)
            plan_node.require_mtu(conf, seen, foreseen.families)
            for step in plan_node.prepare(conf, seen, foreseen.gateways, ""):
                step.require()
            _require_room(ends.host, seen)
        except CNIError as error:
            raise unavailable(error) from error
    if ipam is not None:
        ipam.cmd_status(args)


def _require_room(host: Handle, seen: node.Node) -> None:
    ports = [] if seen.bridge is None else host.links(master=seen.bridge.index)
    if seen.bridge is not None and len(ports) >= steps_veth.MAX_PORTS:
        raise steps_veth.no_room(seen.bridge.name)


def unavailable(error: CNIError) -> CNIError:
    """The same error as STATUS has to say it: code 50 or 51."""
    if error.code in (errors.PLUGIN_NOT_AVAILABLE, errors.LIMITED_CONNECTIVITY):
        return error
    return CNIError(errors.PLUGIN_NOT_AVAILABLE, error.msg, error.details)


def _foreseen(conf: BridgeConf) -> Layer3:
    """What an ADD would get of host-local, as far as the configuration tells; CNIError if nothing.

    The addresses are examples of their subnets.
    """
    if conf.ipam_type != bridge_conf.HOST_LOCAL:
        return layer3.complete(conf, None)
    ipam = wire.canonical(conf.raw["ipam"], ("routes",))
    ranges, given = bridge_conf.ranges(ipam), ipam.get("routes")
    objects = [one for one in given if type(one) is dict] if type(given) is list else []
    routes = [wire.canonical(route, layer3.ROUTE_KEYS) for route in objects]
    taken = [text for one in (*ranges, *routes) for text in (one.get("gateway"), one.get("gw"))]
    ips = [ip for ip in (_example(one, taken) for one in ranges) if ip is not None]
    return layer3.complete(conf, {"ips": ips, "routes": routes} if ips else None)


def _example(item: dict[str, str], taken: list[Any]) -> dict[str, str] | None:
    """An address of a range with its gateway; None if it is no range (host-local says why)."""
    try:
        subnet = cidr.parse_prefix(item["subnet"])
    except (KeyError, ValueError):
        return None
    is_small = subnet.length > subnet.address.bits - 2  # the first is a pod's as well
    address, end = (subnet.first, subnet.last) if is_small else (subnet.last.pred(), subnet.first)
    while str(address) in taken and address != end:
        address = address.succ() if is_small else address.pred()
    return {**item, "address": f"{address}/{subnet.length}"}

"""STATUS: would an ADD succeed now?  Asks the kernel for two links; executes nothing of ours.

Imports: the parts of this package, the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors
from cni.cidr import Prefix
from cni.errors import CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import node, plan_node, steps_pod
from cni_flannel.bridge.ends import Ends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf
    from netlink.handle import Handle


def require(args: Args, conf: BridgeConf, ipam: Plugin | None) -> None:
    """CNIError 50 if the bridge is in the way or IPAM has nothing to give."""
    found = _gateways(conf)
    gateways = found if conf.is_gateway else []
    with Ends() as ends:
        try:
            seen = node.observe(ends.host, conf, gateways)
            plan_node.require_mtu(conf, seen, {gateway.family for gateway in found})
            for step in plan_node.prepare(conf, seen, gateways, ""):
                step.require()
            _require_room(ends.host, seen)
        except CNIError as error:
            raise unavailable(error) from error
    if ipam is not None:
        ipam.cmd_status(args)


def _require_room(host: Handle, seen: node.Node) -> None:
    ports = [] if seen.bridge is None else host.links(master=seen.bridge.index)
    if seen.bridge is not None and len(ports) >= steps_pod.MAX_PORTS:
        raise steps_pod.no_room(seen.bridge.name)


def unavailable(error: CNIError) -> CNIError:
    """The same error as STATUS has to say it: code 50 or 51."""
    if error.code in (errors.PLUGIN_NOT_AVAILABLE, errors.LIMITED_CONNECTIVITY):
        return error
    return CNIError(errors.PLUGIN_NOT_AVAILABLE, error.msg, error.details)


def _gateways(conf: BridgeConf) -> list[Prefix]:
    """The gateway addresses that the ranges of the configuration lead to."""
    found = map(_gateway, bridge_conf.ranges(conf.raw.get("ipam")))
    return [gateway for gateway in found if gateway is not None]


def _gateway(item: dict[str, str]) -> Prefix | None:
    """A range's gateway address; None if it is no range (host-local says what is wrong)."""
    try:
        subnet = cidr.parse_prefix(item["subnet"]).network
        text = item.get("gateway")
        gateway = cidr.parse_address(text) if text else subnet.address.succ()
    except (KeyError, ValueError, OverflowError):
        return None
    return Prefix(gateway, subnet.length)

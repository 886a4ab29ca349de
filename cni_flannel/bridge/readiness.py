"""STATUS: would an ADD succeed now?  Asks the kernel for two links; executes nothing of ours.

Imports: the parts of this package, the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors, wire
from cni.cidr import Prefix
from cni.errors import CNIError
from cni_flannel.bridge import node, plan
from cni_flannel.bridge.ends import Ends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf


def require(args: Args, conf: BridgeConf, ipam: Plugin | None) -> None:
    """CNIError 50 if the bridge is in the way or IPAM has nothing to give."""
    gateways = _gateways(conf) if conf.is_gateway else []
    with Ends() as ends:
        try:
            seen = node.observe(ends.host, conf, gateways)
            plan.prepare(conf, seen, gateways, "")
        except CNIError as error:
            raise unavailable(error) from error
    if ipam is not None:
        ipam.cmd_status(args)


def unavailable(error: CNIError) -> CNIError:
    """The same error as STATUS has to say it: code 50 or 51."""
    if error.code in (errors.PLUGIN_NOT_AVAILABLE, errors.LIMITED_CONNECTIVITY):
        return error
    return CNIError(errors.PLUGIN_NOT_AVAILABLE, error.msg, error.details)


def _gateways(conf: BridgeConf) -> list[Prefix]:
    """The gateway addresses that the ranges of the configuration lead to."""
    ipam = wire.canonical(conf.raw.get("ipam") or {}, ("ranges", "subnet", "gateway"))
    sets = ipam.get("ranges") or []
    ranges = [item for found in sets if type(found) is list for item in found]
    return [g for g in map(_gateway, [ipam, *ranges]) if g is not None]


def _gateway(item: Any) -> Prefix | None:
    """A range's gateway address; None if it is no range (host-local says what is wrong)."""
    if type(item) is not dict:
        return None
    found = wire.canonical(item, ("subnet", "gateway"))
    try:
        subnet = cidr.parse_prefix(found["subnet"]).network
        text = found.get("gateway")
        gateway = cidr.parse_address(text) if text else subnet.address.succ()
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    return Prefix(gateway, subnet.length)

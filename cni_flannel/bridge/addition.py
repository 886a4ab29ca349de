"""Attaching a container: ADD, from the address to the finished link, all of it or nothing.

The order is: make sure that the attachment is not there yet, lease addresses, make or repair
the bridge, make the link.  Whatever fails, what was done before is taken back.
Imports: the parts of this package, the protocol package.
"""

from __future__ import annotations

from cni import errors
from cni.attachment import Attachment
from cni.errors import CNIError, Interrupted
from cni.validate import not_a_new_link
from cni_flannel.bridge import layer3 as l3
from cni_flannel.bridge import links, node, plan, plan_node, steps
from cni_flannel.bridge.conf import HOST_LOCAL, RemovalConf
from cni_flannel.bridge.ends import Ends, mac_of_call, port_mac, random_mac
from cni_flannel.bridge.steps_rules import CheckSourceMAC, Masquerade

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.layer3 import Layer3
    from netlink.link import Link

_ATTEMPTS = 3
_HURRY_S = 0.5


def add(args: Args, conf: BridgeConf, ipam: Plugin | None) -> dict[str, Any]:
    """Attach the container; the result in the shape of 1.1.0.  On failure nothing is left."""
    if problem := not_a_new_link(args.ifname):
        raise CNIError(
            errors.INVALID_ENVIRONMENT,
            f'interface name "{args.ifname}": {problem}',
            "the runtime has to choose another CNI_IFNAME",
        )
    attachment = Attachment(conf.name, args.container_id, args.ifname)
    has_room = False
    try:
        with Ends.both(args, alone=True) as ends:
            args.require_caller()  # it may be long since the call came
            name, cleared = links.make_room(ends, attachment, mac_of_call(args.environ))
            has_room = True
            if cleared:
                args.note(f"rolled back what a killed ADD left of {attachment.alias()}")
                _forget_killed(args, ends, attachment, ipam)
            return _lease_and_attach(args, conf, ends, name, ipam)
    except Interrupted:
        # It may come anywhere, even when all was done.  With room made before, whatever bears the
        # attachment's name is this call's.
        if has_room:
            _detach(_hurried(args, conf), ipam)
        raise


def _lease_and_attach(
    args: Args, conf: BridgeConf, ends: Ends, name: str, ipam: Plugin | None
) -> dict[str, Any]:
    result = _allocate(args, conf, ends, ipam)  # a plugin that fails has taken its leases back
    try:
        return _attach(args, conf, ends, name, l3.complete(conf, result))
    except BaseException as error:
        if not isinstance(error, Interrupted):
            _release(args, ipam)
        raise


def _allocate(
    args: Args, conf: BridgeConf, ends: Ends, ipam: Plugin | None
) -> Mapping[str, Any] | None:
    """Get addresses.  A lease that a killed ADD of this attachment left is released first.

    ``links.make_room`` has seen that the attachment has no link, so such a lease is nobody's.
    """
    if ipam is None:
        return None
    try:
        return ipam.cmd_add(args)
    except CNIError as error:
        if error.code != errors.ADDRESS_TAKEN or conf.ipam_type != HOST_LOCAL:
            raise
        attachment = Attachment(conf.name, args.container_id, args.ifname)
        _forget_killed(args, ends, attachment, ipam)
        return ipam.cmd_add(args)


def _forget_killed(args: Args, ends: Ends, attachment: Attachment, ipam: Plugin | None) -> None:
    """Take back the lease and the rules of a killed ADD: the next one gets another address."""
    from cni_flannel.bridge import removal  # hardly any ADD follows a killed one

    _release(args, ipam)
    removal.remove_rules(args, ends, attachment, [])


def _hurried(args: Args, conf: BridgeConf) -> Args:
    """The same call with little patience for the leases' lock.

    An ADD that was interrupted may have waited for it: then there is no lease yet, and nobody
    waits for an answer any more.
    """
    if conf.ipam_type != HOST_LOCAL:
        return args
    ipam_conf = {**args.conf["ipam"], "lockTimeout": _HURRY_S}
    return args.replaced(conf={**args.conf, "ipam": ipam_conf})


def _detach(args: Args, ipam: Plugin | None) -> None:
    """Take back an attachment that is complete, or half."""
    from cni_flannel.bridge import removal  # hardly any ADD is interrupted

    try:
        removal.remove(args, RemovalConf(args.conf), ipam)
    except CNIError as error:
        args.note(f"could not roll back all of {args.container_id} {args.ifname}: {error}")


def _release(args: Args, ipam: Plugin | None) -> None:
    if ipam is None:
        return
    try:
        ipam.cmd_del(args)
    except CNIError as error:
        args.note(f"could not roll back the lease of {args.container_id}: {error}")


def _attach(args: Args, conf: BridgeConf, ends: Ends, name: str, layer3: Layer3) -> dict[str, Any]:
    """Make the attachment, and say how it has come out."""
    plan.require_mac(conf, layer3)
    bridge = _prepare(args, conf, ends, layer3)
    macs = mac_of_call(args.environ) or port_mac(), conf.mac or plan.pod_mac(layer3, random_mac())
    attachment = Attachment(conf.name, args.container_id, args.ifname)
    gateway = _vlan_interface(ends, conf) if conf.vlan and conf.is_gateway else []
    todo: list[steps.Step] = []
    if conf.ip_masq and layer3.addresses:
        backend = conf.ip_masq_backend or None
        todo.append(Masquerade(attachment, layer3.addresses, backend, args.environ))
    if conf.macspoofchk:
        todo.append(CheckSourceMAC(attachment, name, macs[1], args.environ))
    veth = plan.pair(conf, attachment, bridge, name, macs)
    todo += plan.attach(conf, veth, layer3)
    if args.resident is not None:
        from cni_flannel.bridge.steps_call import CallerWaits  # a process per call has its signals

        todo.append(CallerWaits(args.resident))
    steps.run(todo, ends, args.note if args.debug else None)
    return plan.result(conf, layer3, plan.interfaces(conf, args, veth) + gateway)


def _prepare(args: Args, conf: BridgeConf, ends: Ends, layer3: Layer3) -> Link:
    """Make or repair the bridge until nothing is left to do; return it as it is then.

    Two ADDs may make it at once: the one that comes second looks again and repairs.
    """
    problem = CNIError(errors.KERNEL_REFUSED, f'prepare bridge "{conf.bridge}": it keeps changing')
    for attempt in range(_ATTEMPTS):
        seen = node.observe(ends.host, conf, layer3.gateways)
        seen.hears_ra &= attempt == 0  # a wish: once is enough
        plan_node.require_mtu(conf, seen, layer3.families)
        todo = plan_node.prepare(conf, seen, layer3.gateways, random_mac())
        if seen.bridge is not None and not todo:
            return seen.bridge
        try:
            steps.run(todo, ends, args.note if args.debug else None)
        except CNIError as error:
            if seen.bridge is not None:
                raise
            problem = error
    raise problem


def _vlan_interface(ends: Ends, conf: BridgeConf) -> list[dict[str, Any]]:
    link = ends.host.get_link(conf.gateway_holder)
    if link is None:
        return []
    return [{"name": link.name, "mac": link.mac, **plan.reported_mtu(conf, link.mtu)}]

"""Attaching a container: ADD, from the address to the finished link, all of it or nothing.

The order is: make sure that the attachment is not there yet, lease addresses, make or repair
the bridge, make the link, see that all of it is still ours.  Whatever fails, what this call did
is taken back.  An IPAM plugin that is executed may need the interface (dhcp does): for it the link
comes first.
Imports: the parts of this package, the protocol package.
"""

from __future__ import annotations

from cni import errors
from cni.attachment import Attachment
from cni.errors import CNIError, Interrupted
from cni.validate import not_a_new_link
from cni_flannel.bridge import layer3 as l3
from cni_flannel.bridge import links, node, plan, plan_node, steps
from cni_flannel.bridge.conf import HOST_LOCAL
from cni_flannel.bridge.ends import Ends, mac_of_call, random_mac
from cni_flannel.bridge.steps_claim import Confirm, Lease, overtaken
from cni_flannel.bridge.steps_rules import CheckSourceMAC, Masquerade

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.layer3 import Layer3
    from cni_flannel.bridge.steps import Step
    from cni_flannel.bridge.steps_veth import AddVeth
    from netlink.link import Link

_ATTEMPTS = 3


def add(args: Args, conf: BridgeConf, ipam: Plugin | None) -> dict[str, Any]:
    """Attach the container; the result in the shape of 1.1.0.  On failure nothing is left."""
    if problem := not_a_new_link(args.ifname):
        raise CNIError(
            errors.INVALID_ENVIRONMENT,
            f'interface name "{args.ifname}": {problem}',
            "the runtime has to choose another CNI_IFNAME",
        )
    begun: list[Step] = []
    try:
        with Ends.both(args, alone=True) as ends:
            args.require_caller()  # it may be long since the call came
            return _Addition(args, conf, ends, ipam).run(begun)
    except Interrupted:
        if begun:  # it came when all was done
            with Ends.surviving(args) as ends:
                steps.undo(begun, ends)
        raise


class _Addition:
    """One ADD between its two ends."""

    def __init__(self, args: Args, conf: BridgeConf, ends: Ends, ipam: Plugin | None) -> None:
        self._args = args
        self._conf = conf
        self._ends = ends
        self._tell = args.note if args.debug else None
        self._attachment = Attachment(conf.name, args.container_id, args.ifname)
        self._lease = Lease(args, self._attachment, ipam, conf.ipam_type)
        self._veth: AddVeth | None = None
        self._result: dict[str, Any] = {}

    def run(self, begun: list[Step]) -> dict[str, Any]:
        """Carry it out; ``begun`` gets what is done, should it have to be taken back after all."""
        own_mac = mac_of_call(self._args.environ)
        name, cleared = links.make_room(self._ends, self._attachment, own_mac)
        if cleared:
            self._args.note(f"rolled back what a killed ADD left of {self._attachment.alias()}")
            self._lease.forget_killed(self._ends)
        try:
            steps.run(self._steps(name), self._ends, self._tell, begun)
        except CNIError as error:
            if self._veth is not None and self._veth.is_lost:
                raise overtaken(self._attachment) from error
            raise
        return self._result

    def _steps(self, name: str) -> Iterator[Step]:
        """Each step follows from what those before it have found."""
        conf, layer3 = self._conf, l3.complete(self._conf, None)
        if conf.ipam_type not in ("", HOST_LOCAL):
            self._veth = self._pair(name, layer3)
            yield from plan.link(conf, self._veth)
        yield self._lease
        layer3 = l3.complete(conf, self._lease.result)
        plan.require_mac(conf, layer3)
        veth, mac = self._veth, ""
        if veth is None:
            veth = self._veth = self._pair(name, layer3)
            yield from self._rules(veth, layer3)
            yield from plan.link(conf, veth)
        else:
            veth.bridge = self._prepare(layer3)
            mac = self._mac_of_address(veth, layer3)
            yield from self._rules(veth, layer3)
        yield from plan.complete(conf, veth, layer3, mac)
        leased = layer3.addresses if conf.ipam_type == HOST_LOCAL else []
        yield Confirm(self._args, self._attachment, [prefix.address for prefix in leased])
        interfaces = plan.interfaces(conf, self._args, veth) + self._vlan_interface()
        self._result = plan.result(conf, layer3, interfaces)

    def _pair(self, name: str, layer3: Layer3) -> AddVeth:
        macs = mac_of_call(self._args.environ), self._conf.mac or plan.pod_mac(layer3, random_mac())
        return plan.pair(self._conf, self._attachment, self._prepare(layer3), name, macs)

    def _mac_of_address(self, veth: AddVeth, layer3: Layer3) -> str:
        """What the pod's end is to have as if its address had been known; "" leaves its MAC.

        So it does where the IPAM plugin has used it: dhcp has, and left the interface up.
        """
        pod_link = self._ends.pod.get_link(self._attachment.ifname)
        if self._conf.mac or pod_link is None or pod_link.is_up:
            return ""
        veth.pod_mac = plan.pod_mac(layer3, veth.pod_mac)
        return veth.pod_mac

    def _rules(self, veth: AddVeth, layer3: Layer3) -> Iterator[Step]:
        conf, environ = self._conf, self._args.environ
        if conf.ip_masq and layer3.addresses:
            backend = conf.ip_masq_backend or None
            yield Masquerade(self._attachment, layer3.addresses, backend, environ)
        if conf.macspoofchk:
            yield CheckSourceMAC(self._attachment, veth.name, veth.pod_mac, environ)

    def _prepare(self, layer3: Layer3) -> Link:
        """Make or repair the bridge until nothing is left to do; return it as it is then.

        Two ADDs may make it at once: the one that comes second looks again and repairs.
        """
        conf, host = self._conf, self._ends.host
        problem = CNIError(
            errors.KERNEL_REFUSED, f'prepare bridge "{conf.bridge}": it keeps changing'
        )
        for attempt in range(_ATTEMPTS):
            seen = node.observe(host, conf, layer3.gateways)
            seen.hears_ra &= attempt == 0  # a wish: once is enough
            plan_node.require_mtu(conf, seen, layer3.families)
            todo = plan_node.prepare(conf, seen, layer3.gateways, random_mac())
            if seen.bridge is not None and not todo:
                return seen.bridge
            try:
                steps.run(todo, self._ends, self._tell)
            except CNIError as error:
                if seen.bridge is not None:
                    raise
                problem = error
        raise problem

    def _vlan_interface(self) -> list[dict[str, Any]]:
        conf = self._conf
        if not (conf.vlan and conf.is_gateway):
            return []
        link = self._ends.host.get_link(conf.gateway_holder)
        if link is None:
            return []
        return [{"name": link.name, "mac": link.mac, **plan.reported_mtu(conf, link.mtu)}]

"""From a configuration and what is there to the steps that make the bridge ready.  Pure.

What the node's pods share: the bridge, its gateway address, forwarding; every ADD repairs it, and
leaves the host's as it is (``node`` says whose a bridge is).  Values in, steps out.
Imports: the protocol package, the step classes (which are values until applied).
"""

from __future__ import annotations

from cni import errors
from cni.attachment import BRIDGE_ALIAS
from cni.errors import CNIError
from cni_flannel import netconf
from cni_flannel.bridge import node as observed
from cni_flannel.bridge.links import gateway_port_name
from cni_flannel.bridge.plan import DEFAULT_MTU, port_vlans
from cni_flannel.bridge.steps_node import (
    AddBridge,
    AddGatewayVeth,
    MoveAddress,
    RepairBridge,
    Switch,
)
from netlink.link import IFF_PROMISC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.cidr import Prefix
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.node import Node
    from cni_flannel.bridge.steps import Step
    from netlink.link import Link


def prepare(conf: BridgeConf, node: Node, gateways: list[Prefix], new_mac: str) -> list[Step]:
    """Steps that make or repair the bridge; CNIError 104 if something else is in its place.

    A bridge that is the host's gets the gateway address that the configuration asks for, and comes
    up, but keeps everything else.
    """
    steps: list[Step] = []
    bridge = node.bridge
    if bridge is None:
        steps.append(
            AddBridge(
                conf.bridge,
                new_mac,
                conf.mtu,
                promisc=conf.promisc_mode,
                vlan_filtering=conf.uses_vlans,
                no_dad=any(gateway.family == 6 for gateway in gateways),
            )
        )
    else:
        steps += _repair(conf, node, bridge)
    if gateways and conf.vlan and node.holder is None:
        port = gateway_port_name(conf.gateway_holder)
        steps.append(AddGatewayVeth(conf.bridge, conf.gateway_holder, port, conf.mtu))
        steps.append(port_vlans(conf, port))
    missing = [gateway for gateway in gateways if gateway not in node.addresses]
    if node.ipv6_off and any(gateway.family == 6 for gateway in missing):
        steps.append(_ipv6(conf, node))
    for gateway in missing:
        stale = _replaced(conf, node, gateway, gateways)
        steps.append(MoveAddress(conf.gateway_holder, gateway, stale))
    return steps + _forwarding(node)


def _forwarding(node: Node) -> list[Step]:
    steps: list[Step] = []
    for family, value in sorted(node.forwarding.items()):
        if value is None:
            raise CNIError(
                errors.KERNEL_REFUSED,
                f"forward IPv{family}: this kernel has no "
                f"/proc/sys/{observed.forwarding_switch(family)}",
                "IPv6 is switched off as a whole (ipv6.disable=1 on the kernel's command line): "
                "use a configuration without it, or switch it on",
            )
        if not value:
            uplinks = node.ra_uplinks if family == 6 else ()
            steps += [Switch(observed.accept_ra_switch(uplink), "2") for uplink in uplinks]
            steps.append(Switch(observed.forwarding_switch(family), "1"))
    return steps


def _ipv6(conf: BridgeConf, node: Node) -> Step:
    switch = observed.ipv6_switch(conf.gateway_holder)
    if not node.is_ours:
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f'could not give "{conf.gateway_holder}" an address of IPv6: {switch} is 1, and the '
            "bridge is the host's",
            f"run 'sysctl -w {switch}=0', or choose another name for 'bridge'",
        )
    return Switch(switch, "0", observed.ipv6_switch("default") if node.holder is None else "")


def require_mtu(conf: BridgeConf, node: Node, families: Iterable[int]) -> None:
    """CNIError 7 if the MTU takes IPv6 from the pod, or from the bridge that would follow it."""
    bridge = node.bridge
    mtu = conf.mtu or (DEFAULT_MTU if bridge is None else bridge.mtu)
    if 6 in families:
        netconf.require_mtu(mtu, "the pod gets an address of it")
    used = [a for a in node.addresses if a.family == 6 and not observed.is_link_local(a)]
    if conf.mtu and used:
        netconf.require_mtu(mtu, f'"{conf.gateway_holder}" has {used[0]}')


def _repair(conf: BridgeConf, node: Node, bridge: Link) -> list[Step]:
    """Only a bridge of ours is changed, but that it comes up: no port works before."""
    if bridge.kind != "bridge":
        kind = f'is a "{bridge.kind}"' if bridge.kind else "is a physical interface"
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f'could not use bridge "{conf.bridge}": "{conf.bridge}" already exists '
            f"but is not a bridge: it {kind}",
            "choose another name for 'bridge', or rename that interface",
        )
    if conf.uses_vlans and not bridge.vlan_filtering:
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f'could not use bridge "{conf.bridge}" for VLANs: it does not filter them',
            f"run 'ip link set {conf.bridge} type bridge vlan_filtering 1' (the kernel needs "
            "CONFIG_BRIDGE_VLAN_FILTERING), or choose another name for 'bridge'",
        )
    up = not bridge.is_up
    mtu = conf.mtu if conf.mtu and conf.mtu != bridge.mtu else 0
    promisc = conf.promisc_mode and not bridge.flags & IFF_PROMISC
    mark = bridge.mac if conf.is_gateway and bridge.alias != BRIDGE_ALIAS else ""
    if (mtu or promisc or mark or node.hears_ra) and not node.is_ours:
        if promisc:
            raise CNIError(
                errors.BRIDGE_IN_THE_WAY,
                f'could not set promiscuous mode of "{conf.bridge}": that bridge is the host\'s',
                f"run 'ip link set {conf.bridge} promisc on', or leave 'promiscMode' out",
            )
        return [RepairBridge(bridge.name, up=True)] if up else []
    if not (up or mtu or promisc or mark or node.hears_ra):
        return []
    return [
        RepairBridge(bridge.name, up=up, mtu=mtu, promisc=promisc, no_ra=node.hears_ra, mark=mark)
    ]


def _replaced(conf: BridgeConf, node: Node, gateway: Prefix, wanted: list[Prefix]) -> list[Prefix]:
    """The addresses that have to go for ``gateway``; CNIError 104 while somebody needs them."""
    found = observed.in_the_way(node.addresses, gateway)
    stale = [address for address in found if address not in wanted]
    if not stale or conf.force_address:
        return stale
    own = gateway_port_name(conf.gateway_holder)  # with a VLAN the gateway itself has a port
    ports = [name for name in node.ports if name != own]
    there = ", ".join(str(address) for address in stale)
    msg = (
        f'failed to set bridge addr: "{conf.gateway_holder}" already has an IP address '
        f"different from {gateway}: it has {there}"
    )
    if ports:
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f"{msg}, and {len(ports)} ports use it "
            f"({', '.join(ports[:4])}{', ...' if len(ports) > 4 else ''})",
            f"this node's subnet changed from {stale[0].network} to {gateway.network}: restart "
            "the pods that still use the old one (the bridge is re-addressed when the last is "
            "gone), or set 'forceAddress': true to cut them off",
        )
    if not node.is_ours:
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f"{msg}, and the bridge is the host's",
            "choose another name for 'bridge', or set 'forceAddress': true to have the address "
            "replaced",
        )
    return stale

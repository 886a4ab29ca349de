"""From a configuration and what is there to the list of steps of an ADD.  Pure.

``prepare`` is what the node's pods share: the bridge, its gateway address, forwarding; every
ADD repairs it.  ``attach`` is one pod's.  Values in, steps out: nothing here makes a system call.
Imports: the protocol package, the step classes (which are values until applied).
"""

from __future__ import annotations

from zlib import crc32

from cni import errors
from cni.cidr import Address
from cni.errors import CNIError
from cni_flannel.bridge import node as observed
from cni_flannel.bridge.steps_node import (
    AddBridge,
    AddGatewayVeth,
    Forward,
    MoveAddress,
    RepairBridge,
)
from cni_flannel.bridge.steps_pod import AddVeth, ConfigurePod, Finish, PodSysctls
from cni_flannel.bridge.steps_port import AwaitPort, PortVlans, RequireFreeMAC
from netlink.link import IFF_PROMISC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.attachment import Attachment
    from cni.cidr import Prefix
    from cni.types import Args
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.layer3 import Layer3
    from cni_flannel.bridge.node import Node
    from cni_flannel.bridge.steps import Step
    from netlink.link import Link

_OF_IPV4 = "0a:58"
# A prime below 0x258 << 32, where the MACs of IPv4 pods begin.  The remainders of two addresses of
# one subnet are equal only if they are that far apart; docs/decisions/0004-mac.md has the others.
_OF_IPV6 = 0x257_FFFF_FE45
DEFAULT_MTU = 1500  # what the kernel gives a veth (ETH_DATA_LEN, linux/if_ether.h)


def prepare(conf: BridgeConf, node: Node, gateways: list[Prefix], new_mac: str) -> list[Step]:
    """Steps that make or repair the bridge; CNIError 104 if something else is in its place."""
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
        steps += _repair(conf, bridge, no_ra=node.hears_ra)
    if gateways and conf.vlan and node.holder is None:
        port = gateway_port_name(conf.gateway_holder)
        steps.append(AddGatewayVeth(conf.bridge, conf.gateway_holder, port, conf.mtu))
        steps.append(port_vlans(conf, port))
    for gateway in gateways:
        if gateway not in node.addresses:
            stale = _replaced(conf, node, gateway, gateways)
            pin = bridge.mac if bridge is not None and not conf.vlan else ""
            steps.append(MoveAddress(conf.gateway_holder, gateway, stale, pin=pin))
    for family in sorted(node.forwarding):
        if not node.forwarding[family]:
            steps.append(Forward(family, node.ra_uplinks if family == 6 else ()))
    return steps


def _repair(conf: BridgeConf, bridge: Link, *, no_ra: bool) -> list[Step]:
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
    if not (up or mtu or promisc or no_ra):
        return []
    return [RepairBridge(bridge.name, up=up, mtu=mtu, promisc=promisc, no_ra=no_ra)]


def _replaced(conf: BridgeConf, node: Node, gateway: Prefix, wanted: list[Prefix]) -> list[Prefix]:
    """The addresses that have to go for ``gateway``; CNIError 104 while pods still use them."""
    found = observed.in_the_way(node.addresses, gateway)
    stale = [address for address in found if address not in wanted]
    own = gateway_port_name(conf.gateway_holder)  # with a VLAN the gateway itself has a port
    ports = [name for name in node.ports if name != own]
    if stale and ports and not conf.force_address:
        there = ", ".join(str(address) for address in stale)
        raise CNIError(
            errors.BRIDGE_IN_THE_WAY,
            f'failed to set bridge addr: "{conf.gateway_holder}" already has an IP address '
            f"different from {gateway}: it has {there}, and {len(ports)} ports use it "
            f"({', '.join(ports[:4])}{', ...' if len(ports) > 4 else ''})",
            f"this node's subnet changed from {stale[0].network} to {gateway.network}: restart "
            "the pods that still use the old one (the bridge is re-addressed when the last is "
            "gone), or set 'forceAddress': true to cut them off",
        )
    return stale


def attach(
    conf: BridgeConf,
    attachment: Attachment,
    layer3: Layer3,
    bridge: Link,
    *,
    name: str,
    macs: tuple[str, str],
) -> list[Step]:
    """Steps that make one attachment; ``macs`` are those of the host's and the pod's end."""
    host_mac, pod_mac = macs
    ifname = attachment.ifname
    flags = (conf.hairpin_mode, conf.port_isolation)
    steps: list[Step] = [
        AddVeth(
            attachment,
            name,
            bridge=bridge,
            host_mac=host_mac,
            pod_mac=pod_mac,
            mtu=conf.mtu or DEFAULT_MTU,
            flags=flags,
        )
    ]
    if conf.uses_vlans:
        steps.append(port_vlans(conf, name))
    elif conf.mac:  # in another VLAN the same MAC is another host's
        steps.append(RequireFreeMAC(name, bridge, conf.mac))
    if not conf.disable_container_interface:
        if layer3.addresses:
            steps.append(PodSysctls(_pod_sysctls(conf, ifname, layer3.families)))
        routes = layer3.container_routes
        steps.append(ConfigurePod(ifname, layer3.addresses, routes, dad=conf.enabledad))
        if conf.enabledad and 6 in layer3.families:
            from cni_flannel.bridge.steps_dad import DetectDuplicates  # rarely asked for

            steps.append(DetectDuplicates(ifname, layer3.addresses))
        steps.append(AwaitPort(name, bridge))
    on_link = [prefix.address for prefix in layer3.addresses] if layer3.gateways else []
    steps.append(Finish(attachment, name, bridge, [] if conf.vlan else on_link))
    return steps


def port_vlans(conf: BridgeConf, name: str) -> PortVlans:
    """The VLANs of a port: with a trunk alone, the default VLAN 1 stays the untagged one."""
    return PortVlans(
        name,
        conf.vlan or 1,
        conf.trunk,
        drop_default=conf.vlan > 1 and not conf.preserve_default_vlan,
    )


def _pod_sysctls(conf: BridgeConf, ifname: str, families: list[int]) -> list[tuple[str, str, bool]]:
    """Switches of the pod's interface as (path, value, required)."""
    v4, v6 = f"net/ipv4/conf/{ifname}", f"net/ipv6/conf/{ifname}"
    switches = [(f"{v4}/arp_notify", "1", False)] if 4 in families else []
    if 6 not in families:
        return switches
    if conf.enabledad:
        switches += [(f"{v6}/enhanced_dad", "1", False), (f"{v6}/accept_dad", "1", False)]
    else:
        switches.append((f"{v6}/accept_dad", "0", False))
    if not conf.keep_accept_ra:
        switches.append((f"{v6}/accept_ra", "0", False))
    return [
        *switches,
        ("net/ipv6/conf/lo/disable_ipv6", "0", True),
        (f"{v6}/disable_ipv6", "0", True),
        (f"{v6}/keep_addr_on_down", "1", False),
    ]


def pod_mac(layer3: Layer3, random_mac: str) -> str:
    """The MAC of the pod's end: it follows from the first address, or is a random one.

    Whoever talked to the last pod with this address has its MAC cached: the next pod with the
    address has the same one, so nobody has to forget anything.  An IPv4 address is in its MAC
    whole; of an IPv6 address every bit counts (``_OF_IPV6``).
    """
    if not layer3.addresses:
        return random_mac
    address = layer3.addresses[0].address
    if address.family == 4:
        return f"{_OF_IPV4}:{address.packed.hex(':')}"
    octets = (address.value % _OF_IPV6).to_bytes(6, "big")
    return bytes([octets[0] << 2 | 0x02, *octets[1:]]).hex(":")


def require_mac(conf: BridgeConf, layer3: Layer3) -> None:
    """CNIError 103 if the requested MAC is the one that another pod of the subnet has, or will."""
    if not conf.mac.startswith(_OF_IPV4):
        return
    address = Address.from_packed(bytes.fromhex(conf.mac.replace(":", ""))[2:])
    if any(own.address == address for own in layer3.addresses):
        return
    if any(own.contains(address) for own in layer3.addresses):
        raise CNIError(
            errors.ADDRESS_TAKEN,
            f"requested MAC address {conf.mac} is that of the pod with the address {address}",
            "request another one: two pods with one MAC cannot both be reached",
        )


def gateway_port_name(holder: str) -> str:
    """The bridge's end of the pair whose other end is the VLAN's gateway ``holder``."""
    return f"veth{crc32(holder.encode()):08x}"


def interfaces(
    conf: BridgeConf, args: Args, bridge: Link, *, name: str, macs: tuple[str, str]
) -> list[dict[str, Any]]:
    """The result's interfaces, in the order that chained plugins rely on."""
    mtu = conf.mtu or DEFAULT_MTU
    return [
        {"name": bridge.name, "mac": bridge.mac, **reported_mtu(conf, bridge.mtu)},
        {"name": name, "mac": macs[0], **reported_mtu(conf, mtu)},
        {"name": args.ifname, "mac": macs[1], **reported_mtu(conf, mtu), "sandbox": args.netns},
    ]


def reported_mtu(conf: BridgeConf, mtu: int) -> dict[str, int]:
    """An interface's ``mtu`` for the result: the specification has the key from 1.1.0 on."""
    return {"mtu": mtu} if conf.raw.get("cniVersion") == "1.1.0" else {}


def result(conf: BridgeConf, layer3: Layer3, interfaces: list[dict[str, Any]]) -> dict[str, Any]:
    """The result in the shape of 1.1.0; every address is on the container's interface."""
    return {
        "interfaces": interfaces,
        "ips": [{**ip, "interface": 2} for ip in layer3.ips],
        "routes": layer3.routes,
        "dns": layer3.dns or conf.dns,
    }

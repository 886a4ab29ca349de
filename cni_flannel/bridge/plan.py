"""From a configuration and what is there to the steps of one attachment.  Pure.

``plan_node`` has those of what the node's pods share.  Values in, steps out: nothing here makes a
system call.
Imports: the protocol package, the step classes (which are values until applied).
"""

from __future__ import annotations

from cni import errors
from cni.cidr import Address
from cni.errors import CNIError
from cni_flannel.bridge.steps_pod import ConfigurePod, Finish, PodSysctls
from cni_flannel.bridge.steps_port import AwaitPort, PortVlans, RequireFreeMAC
from cni_flannel.bridge.steps_veth import AddVeth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.attachment import Attachment
    from cni.types import Args
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.layer3 import Layer3
    from cni_flannel.bridge.steps import Step
    from netlink.link import Link

_OF_IPV4 = "0a:58"
# A prime below 0x258 << 32, where the MACs of IPv4 pods begin.  The remainders of two addresses of
# one subnet are equal only if they are that far apart; docs/decisions/0004-mac.md has the others.
_OF_IPV6 = 0x257_FFFF_FE45
DEFAULT_MTU = 1500  # what the kernel gives a veth (ETH_DATA_LEN, linux/if_ether.h)


def pair(
    conf: BridgeConf, attachment: Attachment, bridge: Link, name: str, macs: tuple[str, str]
) -> AddVeth:
    """The step that makes the pair; ``macs`` are those of the host's and the pod's end.

    Without an MTU of its own the pod has the bridge's: a bridge drops what is longer, and one that
    follows its ports would come down to a smaller one.
    """
    return AddVeth(
        attachment,
        name,
        bridge=bridge,
        host_mac=macs[0],
        pod_mac=macs[1],
        mtu=conf.mtu or bridge.mtu,
        flags=(conf.hairpin_mode, conf.port_isolation),
    )


def link(conf: BridgeConf, veth: AddVeth) -> list[Step]:
    """Steps that make an attachment's link, of which ``veth`` is the first."""
    if conf.uses_vlans:
        return [veth, port_vlans(conf, veth.name)]
    if conf.mac:  # in another VLAN the same MAC is another host's
        return [veth, RequireFreeMAC(veth.name, veth.bridge, conf.mac)]
    return [veth]


def complete(conf: BridgeConf, veth: AddVeth, layer3: Layer3, mac: str = "") -> list[Step]:
    """Steps that make a link an attachment; ``mac`` is what the pod's end gets instead of its."""
    name, bridge, ifname = veth.name, veth.bridge, veth.attachment.ifname
    steps: list[Step] = []
    if not conf.disable_container_interface:
        if layer3.addresses:
            steps.append(PodSysctls(_pod_sysctls(conf, ifname, layer3.families)))
        routes = layer3.container_routes
        steps.append(ConfigurePod(ifname, layer3.addresses, routes, dad=conf.enabledad, mac=mac))
        if conf.enabledad and 6 in layer3.families:
            from cni_flannel.bridge.steps_dad import DetectDuplicates  # rarely asked for

            steps.append(DetectDuplicates(ifname, layer3.addresses))
        steps.append(AwaitPort(name, bridge))
    if layer3.host_routes:
        from cni_flannel.bridge.steps_route import RouteToPod  # hardly any gateway is elsewhere

        steps.append(RouteToPod(conf.gateway_holder, layer3.host_routes))
    on_link = [prefix.address for prefix in layer3.addresses] if layer3.gateways else []
    alias = veth.attachment.alias(rules=conf.ip_masq or conf.macspoofchk)
    steps.append(Finish(alias, name, bridge, [] if conf.vlan else on_link))
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


def interfaces(conf: BridgeConf, args: Args, veth: AddVeth) -> list[dict[str, Any]]:
    """The result's interfaces, in the order that chained plugins rely on."""
    bridge, mtu = veth.bridge, reported_mtu(conf, veth.mtu)
    return [
        {"name": bridge.name, "mac": bridge.mac, **reported_mtu(conf, bridge.mtu)},
        {"name": veth.name, "mac": veth.host_mac, **mtu},
        {"name": args.ifname, "mac": veth.pod_mac, **mtu, "sandbox": args.netns},
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

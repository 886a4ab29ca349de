"""CHECK: how an attachment differs from its result and its configuration, a sentence each.

The result of the chain (``prevResult``) rules: plugins after this one may have changed MACs,
MTU and routes, and wrote what they did into it.  Everything is compared before anything is
reported.
Imports: the parts of this package, ``netlink``, ``kernel``, the protocol package.
"""

from __future__ import annotations

from cni import cidr, errors, version
from cni.attachment import Attachment
from cni.cidr import Prefix
from cni.errors import CNIError
from cni_flannel.bridge import links, node
from cni_flannel.bridge.ends import Ends
from netlink import rtnl, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni.cidr import Address
    from cni.types import Args, Plugin
    from cni_flannel.bridge.conf import BridgeConf
    from netlink.link import Link

    Interface = dict[str, Any]

_ON = {True: "on", False: "off"}


def check(args: Args, conf: BridgeConf, ipam: Plugin | None) -> None:
    """CNIError 106 lists every difference; CNIError 7 if there is no result to compare with."""
    prev_result = version.prev_result(args.conf)
    if prev_result is None:
        raise CNIError(
            errors.INVALID_NETWORK_CONFIG,
            "Required prevResult missing",
            "CHECK needs the result of the ADD: the runtime has to pass it as 'prevResult'",
        )
    with Ends.both(args) as ends:
        found = list(_differences(args, conf, prev_result, ends))
    what = f"check {args.ifname} of container {args.container_id}"
    problems = []
    if found:
        remedy = (
            "delete and recreate the pod; if many pods are affected look for another program "
            "that manages their links, routes or rules"
        )
        msg = f"{what}: {'; '.join(found)}"
        problems.append(CNIError(errors.ATTACHMENT_DIFFERS, msg, remedy))
    if ipam is not None:
        try:
            ipam.cmd_check(args)
        except CNIError as error:
            problems.append(error)
    if problems:
        raise errors.combine(what, problems)


def _differences(
    args: Args, conf: BridgeConf, prev_result: dict[str, Any], ends: Ends
) -> Iterator[str]:
    interfaces: list[Interface] = prev_result.get("interfaces") or []
    bridge = ends.host.get_link(conf.bridge)
    pod_link = ends.pod.get_link(args.ifname)
    host_link = None if pod_link is None else links.peer_on_host(ends, pod_link)
    yield from _bridge(args, conf, bridge, prev_result, ends)
    wants_up = not conf.disable_container_interface
    yield from _pod_link(args, pod_link, interfaces, wants_up=wants_up)
    if pod_link is not None:
        yield from _host_link(args, conf, host_link, bridge, interfaces)
        yield from _addresses(args, prev_result, pod_link, ends)
        yield from _routes(args, prev_result, ends)
    yield from _rules(args, conf, prev_result, host_link, pod_link)


def _bridge(
    args: Args,
    conf: BridgeConf,
    bridge: Link | None,
    prev_result: dict[str, Any],
    ends: Ends,
) -> Iterator[str]:
    if bridge is None:
        yield f"bridge {conf.bridge} does not exist"
        return
    if bridge.kind != "bridge":
        yield f'{conf.bridge} is not a bridge but "{bridge.kind}"'
        return
    if not bridge.is_up:
        yield f"Bridge interface {conf.bridge} is down"
    if conf.promisc_mode and not bridge.flags & rtnl.IFF_PROMISC:
        yield f"bridge {conf.bridge} has promiscuous mode off"
    if found := list(_values(conf, bridge, prev_result)):
        gateways = _gateways(args, prev_result) if conf.is_gateway else []
        if node.observe(ends.host, conf, gateways).is_ours:
            yield from found  # the host's bridge has what the host, or its ports, give it
    if conf.is_gateway:
        yield from _held(args, conf, prev_result, ends)


def _values(conf: BridgeConf, bridge: Link, prev_result: dict[str, Any]) -> Iterator[str]:
    expected = dict(_named(prev_result.get("interfaces") or [], conf.bridge) or {})
    if not conf.mtu:
        expected.pop("mtu", None)  # the kernel's: the smallest of its ports
    yield from _properties(f"Bridge interface {conf.bridge}", bridge, expected, up=False)
    if conf.mtu and bridge.mtu != conf.mtu:
        yield f"bridge {conf.bridge} has MTU {bridge.mtu}, not {conf.mtu}"


def _gateways(args: Args, prev_result: dict[str, Any]) -> list[Prefix]:
    return [
        Prefix(cidr.parse_address(ip["gateway"]), cidr.parse_prefix(ip["address"]).length)
        for ip in _own_ips(args, prev_result)
        if ip.get("gateway")
    ]


def _held(args: Args, conf: BridgeConf, prev_result: dict[str, Any], ends: Ends) -> Iterator[str]:
    holder = ends.host.get_link(conf.gateway_holder)
    there = [] if holder is None else [a.prefix.address for a in ends.host.addresses(holder.index)]
    for ip in _own_ips(args, prev_result):
        if not ip.get("gateway"):
            continue
        gateway, address = cidr.parse_address(ip["gateway"]), cidr.parse_prefix(ip["address"])
        if not address.contains(gateway) and not _leads(ends, holder, address.address):
            yield f"the host has no route to {address.address} on bridge {conf.gateway_holder}"
        if gateway not in there:
            yield f"bridge {conf.gateway_holder} has not got the gateway address {gateway}"
        if sysctl.read(node.forwarding_switch(gateway.family)) != "1":
            yield f"forwarding of IPv{gateway.family} is off on the host"


def _leads(ends: Ends, holder: Link | None, address: Address) -> bool:
    routes = [] if holder is None else ends.host.routes(address.family, index=holder.index)
    return any(route.dst.contains(address) for route in routes)


def _pod_link(
    args: Args, link: Link | None, interfaces: list[Interface], *, wants_up: bool
) -> Iterator[str]:
    expected = next((i for i in interfaces if i.get("sandbox") and _is(i, args.ifname)), None)
    if expected is None and interfaces:
        yield f"prevResult has no interface {args.ifname} in a sandbox"
    elif expected is not None and expected["sandbox"] != args.netns:
        yield (
            f"Sandbox in prevResult {expected['sandbox']} doesn't match "
            f"configured netns: {args.netns}"
        )
    if link is None:
        yield f"Interface name {args.ifname} not found in {args.netns}"
        return
    if link.kind != "veth":
        yield f'{args.ifname} is not a veth but "{link.kind or "a physical interface"}"'
    if expected is not None and link.mtu < (expected.get("mtu") or 0):
        # A later plugin (tuning) may have lowered it, and need not say so in its result.
        expected = {**expected, "mtu": link.mtu}
    yield from _properties(f"Interface {args.ifname}", link, expected, up=wants_up)


def _host_link(
    args: Args,
    conf: BridgeConf,
    link: Link | None,
    bridge: Link | None,
    interfaces: list[Interface],
) -> Iterator[str]:
    if link is None:
        yield f"the host's end of {args.ifname} is missing"
        return
    if bridge is not None and link.master != bridge.index:
        yield f"host veth {link.name} is not a port of bridge {conf.bridge}"
    on_host = [i for i in interfaces if not i.get("sandbox")]
    expected = _named(on_host, link.name)
    if expected is None and interfaces:
        yield f"the host's end of {args.ifname} is {link.name}, which prevResult does not name"
    yield from _properties(f"Host veth {link.name}", link, expected)
    attachment = Attachment(conf.name, args.container_id, args.ifname)
    if link.alias and not attachment.owns(link.alias):
        yield f"host veth {link.name} belongs to {link.alias}"
    elif link.alias == attachment.alias(adding=True):
        yield f"host veth {link.name} is of an ADD that did not come to its end"
    if link.port is not None:
        if link.port.hairpin != conf.hairpin_mode:
            yield f"host veth {link.name} has hairpin {_ON[link.port.hairpin]}"
        if link.port.isolated != conf.port_isolation:
            yield f"host veth {link.name} has port isolation {_ON[link.port.isolated]}"


def _own_ips(args: Args, prev_result: dict[str, Any]) -> list[dict[str, Any]]:
    """The addresses on this attachment's interface; other plugins of the chain may have others."""
    interfaces = prev_result.get("interfaces") or []
    return [
        ip
        for ip in prev_result.get("ips") or []
        if type(index := ip.get("interface")) is not int
        or not 0 <= index < len(interfaces)
        or _is(interfaces[index], args.ifname)
    ]


def _addresses(args: Args, prev_result: dict[str, Any], link: Link, ends: Ends) -> Iterator[str]:
    there = [found.prefix for found in ends.pod.addresses(link.index)]
    for ip in _own_ips(args, prev_result):
        if cidr.parse_prefix(ip["address"]) not in there:
            yield f"Failed to match addr {ip['address']} on interface {args.ifname}"


def _routes(args: Args, prev_result: dict[str, Any], ends: Ends) -> Iterator[str]:
    """Every route, in whatever table a later plugin has put it, by whichever of its ways."""
    for route in prev_result.get("routes") or []:
        dst = cidr.parse_prefix(route["dst"])
        gw = cidr.parse_address(route["gw"]) if route.get("gw") else None
        if gw is not None and not gw.value:
            gw = None
        there = [found for found in ends.pod.routes(dst.family) if found.dst == dst.network]
        if not any(gw is None or gw in found.gateways for found in there):
            yield f"route to {dst}{f' via {gw}' if gw else ''} is missing in {args.netns}"


def _rules(
    args: Args,
    conf: BridgeConf,
    prev_result: dict[str, Any],
    host_link: Link | None,
    pod_link: Link | None,
) -> Iterator[str]:
    if conf.ip_masq:
        from cni_flannel.kernel import masq  # most nodes leave masquerading to the daemon

        prefixes = [cidr.parse_prefix(ip["address"]) for ip in _own_ips(args, prev_result)]
        names = conf.name, args.container_id, args.ifname
        backend = conf.ip_masq_backend or None
        yield from masq.verify(backend, *names, prefixes, args.environ)
    if conf.macspoofchk and host_link is not None and pod_link is not None:
        from cni_flannel.kernel import macspoof  # rarely asked for

        names = (host_link.name, pod_link.mac, args.container_id)
        yield from macspoof.verify(*names, args.ifname, args.environ)


def _properties(
    what: str, link: Link, expected: Interface | None, *, up: bool = True
) -> Iterator[str]:
    """MAC and MTU as in the result, as far as it tells them, and up if it has to be."""
    expected = expected or {}
    mac, mtu = expected.get("mac"), expected.get("mtu")
    if mac and mac.lower() != link.mac:
        yield f"{what} Mac doesn't match: it is {link.mac}, prevResult says {mac}"
    if mtu and mtu != link.mtu:
        yield f"{what} MTU doesn't match: it is {link.mtu}, prevResult says {mtu}"
    if up and not link.is_up:
        yield f"{what} is down"


def _named(interfaces: list[Interface], name: str) -> Interface | None:
    return next((i for i in interfaces if not i.get("sandbox") and _is(i, name)), None)


def _is(interface: Interface, name: str) -> bool:
    return bool(interface.get("name") == name)

"""The interface that reaches the other nodes: which one it is, and this node's addresses on it.

The order of the ways to name it is the Go daemon's (main.go, pkg/ipmatch/match.go): each
``--iface``, each ``--iface-regex``, ``--iface-can-reach``; without any of them the owner of
``--public-ip``, or else the default route's interface.  Pure: ``kernel.interfaces`` reads the
``Underlay``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from flanneld.backend.base import External
from flanneld.links import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress
    from flanneld.links import Interface, Known, Underlay
    from flanneld.options import Options


class ExternalError(Exception):
    """No interface fits; ``str`` says what was looked for and what there is."""


@dataclass(frozen=True, slots=True)
class _Match:
    """An interface, and the address by which it was found, if it was one."""

    interface: Interface
    address: AnyAddress | None = None


def choose(wishes: Options, conf: NetConf, underlay: Underlay, known: Known = NOTHING) -> External:
    """Find the interface; ExternalError says each way that was tried, and why it failed.

    A flannel's own devices and the pods' bridge do not count, whoever names them.
    """
    for address in known.asked:
        if isinstance(address, IPv4Address):
            wishes = replace(wishes, public_ip=wishes.public_ip or address)
        else:
            wishes = replace(wishes, public_ipv6=wishes.public_ipv6 or address)
    versions = [v for v, network in ((4, conf.network), (6, conf.network6)) if network is not None]
    ours = {one.name for one in underlay.interfaces if one.is_flannels or one.has_pods(conf, known)}
    others = replace(
        underlay, interfaces=tuple(one for one in underlay.interfaces if one.name not in ours)
    )
    failures = []
    for way in _ways(wishes, others, versions, known):
        try:
            return _external(way(), wishes, versions, known, underlay.sources)
        except ExternalError as error:
            failures.append(str(error))
    aside = f"; the pods' own, which lead to no node: {', '.join(sorted(ours))}" if ours else ""
    raise ExternalError("; ".join(failures) + f"; interfaces: {others.describe()}{aside}")


def _ways(
    wishes: Options, underlay: Underlay, versions: list[int], known: Known
) -> Iterator[Callable[[], _Match]]:
    for name in wishes.iface:
        yield partial(_by_name, underlay, name)
    for pattern in wishes.iface_regex:
        yield partial(_by_regex, underlay, pattern, versions, known)
    if wishes.iface_can_reach is not None:
        yield partial(_by_reach, underlay, wishes)
    if wishes.iface or wishes.iface_regex or wishes.iface_can_reach is not None:
        return
    public = [
        address
        for address in (wishes.public_ip, wishes.public_ipv6)
        if address is not None and address.version in versions
    ]
    if public:
        yield partial(_by_name, underlay, str(public[0]))
    else:
        yield partial(_by_default_route, underlay, versions, known)


def _by_name(underlay: Underlay, name: str) -> _Match:
    """Find by address, or by name."""
    try:
        address = ip_address(name)
    except ValueError:
        for interface in underlay.interfaces:
            if interface.name == name:
                return _Match(interface)
        raise ExternalError(f"error looking up interface {name}: there is none") from None
    for interface in underlay.interfaces:
        if interface.owns(address):
            return _Match(interface, address)
    raise ExternalError(
        f"error looking up interface {name}: no interface has this address; behind NAT name the"
        " interface with --iface and the outer address with --public-ip"
    )


def _by_regex(underlay: Underlay, pattern: str, versions: list[int], known: Known) -> _Match:
    """Find the first interface with a matching address, else the first with a matching name."""
    for interface in underlay.interfaces:
        for address in interface.best(versions[0], known):
            if re.search(pattern, str(address)):
                return _Match(interface, address)
    for interface in underlay.interfaces:
        if re.search(pattern, interface.name):
            return _Match(interface)
    raise ExternalError(
        f"could not match pattern {pattern} to any of the available network interfaces"
    )


def _by_reach(underlay: Underlay, wishes: Options) -> _Match:
    found = underlay.by_index(underlay.reach[0]) if underlay.reach else None
    if found is None or underlay.reach is None:
        raise ExternalError(
            f"failed to get ifcanreach based interface: no route to {wishes.iface_can_reach}"
        )
    return _Match(found, underlay.reach[1])


def _by_default_route(underlay: Underlay, versions: list[int], known: Known) -> _Match:
    """Find the interface of the best default route, unless the one in use still serves."""
    found = {
        version: [
            interface
            for index in underlay.defaults.get(version, ())
            if (interface := underlay.by_index(index)) is not None
        ]
        for version in versions
    }
    for interface in underlay.interfaces:
        if _serves(interface, found, known, underlay):
            return _Match(interface)
    for version, interfaces in found.items():
        if not interfaces:
            raise ExternalError(
                f"failed to get default{' v6' * (version == 6)} interface: the main table has no"
                f" default route of IPv{version}; name the interface with --iface"
            )
    first, last = found[versions[0]], found[versions[-1]]
    for interface in first:
        if interface in last:
            return _Match(interface)
    raise ExternalError(
        f"v6 default route interface {last[0].name} must be the same with v4 default"
        f" route interface {first[0].name}; name the interface with --iface"
    )


def _serves(
    interface: Interface,
    defaults: Mapping[int, list[Interface]],
    known: Known,
    underlay: Underlay,
) -> bool:
    """Whether an interface is in use, and reaches the others as before.

    A default route with a better metric (a VPN's) is no reason to leave it: the other nodes know
    this one by its address there.
    """
    in_use = interface.name == known.now or (not known.now and any(map(interface.owns, known.held)))
    if not in_use or not interface.running:
        return False
    for version, interfaces in defaults.items():
        others = [address for address in known.others if address.version == version]
        if not interface.best(version):
            return False
        if interface not in interfaces and not underlay.lead(interface, others):
            return False
    return True


def _external(
    match: _Match,
    wishes: Options,
    versions: list[int],
    known: Known,
    sources: Mapping[int, AnyAddress],
) -> External:
    interface = match.interface
    if interface.mtu == 0:
        raise ExternalError(f"failed to determine MTU for {interface.name} interface")
    found: dict[int, AnyAddress] = {}
    for version in versions:
        if match.address is not None and match.address.version == version:
            found[version] = match.address
        elif best := interface.best(version, known, sources.get(version)):
            found[version] = best[0]
        else:
            raise ExternalError(f"failed to find IPv{version} address for {interface.name}")
    address, address6 = found.get(4), found.get(6)
    own = address if isinstance(address, IPv4Address) else None
    own6 = address6 if isinstance(address6, IPv6Address) else None
    return External(
        name=interface.name,
        index=interface.index,
        mtu=interface.mtu,
        address=own,
        address6=own6,
        public_ip=wishes.public_ip if own and wishes.public_ip else own,
        public_ip6=wishes.public_ipv6 if own6 and wishes.public_ipv6 else own6,
    )

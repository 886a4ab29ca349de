"""The interface that reaches the other nodes: which one it is, and this node's addresses on it.

The order of the ways to name it is the Go daemon's (main.go, pkg/ipmatch/match.go): each
``--iface``, each ``--iface-regex``, ``--iface-can-reach``; without any of them the owner of
``--public-ip``, or else the default route's interface.  Pure: ``kernel.interfaces`` reads the
``Underlay``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from flanneld.backend.base import External

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress
    from flanneld.options import Options

IFA_F_TEMPORARY = 0x01  # of an IPv6 address; of an IPv4 one the bit says secondary
IFA_F_DEPRECATED = 0x20
IFA_F_PERMANENT = 0x80


class ExternalError(Exception):
    """No interface fits; ``str`` says what was looked for and what there is."""


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface, with its IFA_F_* flags (linux/if_addr.h)."""

    address: AnyAddress
    flags: int = IFA_F_PERMANENT


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its addresses in the kernel's order; ``mtu`` in bytes."""

    index: int
    name: str
    mtu: int
    addresses: tuple[InterfaceAddress, ...] = ()

    def best(self, version: int) -> list[AnyAddress]:
        """Addresses of a family, best first: global, permanent, not temporary ones lead.

        Deprecated ones do not count: they are about to go.
        """
        usable = [
            entry
            for entry in self.addresses
            if entry.address.version == version and not entry.flags & IFA_F_DEPRECATED
        ]
        return [entry.address for entry in sorted(usable, key=_rank)]

    def owns(self, address: AnyAddress) -> bool:
        """Whether the address is one of the interface's."""
        return any(entry.address == address for entry in self.addresses)


def _rank(entry: InterfaceAddress) -> tuple[bool, bool, bool]:
    return (
        entry.address.is_link_local,
        not entry.flags & IFA_F_PERMANENT,
        entry.address.version == 6 and bool(entry.flags & IFA_F_TEMPORARY),
    )


@dataclass(frozen=True, slots=True)
class Underlay:
    """What the kernel has: interfaces by index, and by IP version that of the default route.

    ``reach`` is the interface, and the source address, of the route to ``--iface-can-reach``.
    """

    interfaces: tuple[Interface, ...]
    defaults: Mapping[int, int] = field(default_factory=dict)
    reach: tuple[int, AnyAddress | None] | None = None

    def by_index(self, index: int) -> Interface | None:
        """Find an interface by its number."""
        return next((one for one in self.interfaces if one.index == index), None)

    def describe(self) -> str:
        """All interfaces with their addresses, for an error."""
        return ", ".join(
            f"{one.name}:{[str(entry.address) for entry in one.addresses]}"
            for one in self.interfaces
        )


@dataclass(frozen=True, slots=True)
class _Match:
    """An interface, and the address by which it was found, if it was one."""

    interface: Interface
    address: AnyAddress | None = None


def choose(wishes: Options, conf: NetConf, underlay: Underlay) -> External:
    """Find the interface; ExternalError says each way that was tried, and why it failed."""
    versions = [v for v, network in ((4, conf.network), (6, conf.network6)) if network is not None]
    failures = []
    for way in _ways(wishes, underlay, versions):
        try:
            return _external(way(), wishes, versions)
        except ExternalError as error:
            failures.append(str(error))
    raise ExternalError("; ".join(failures) + f"; interfaces: {underlay.describe()}")


def _ways(
    wishes: Options, underlay: Underlay, versions: list[int]
) -> Iterator[Callable[[], _Match]]:
    for name in wishes.iface:
        yield partial(_by_name, underlay, name)
    for pattern in wishes.iface_regex:
        yield partial(_by_regex, underlay, pattern, versions)
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
        yield partial(_by_default_route, underlay, versions)


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


def _by_regex(underlay: Underlay, pattern: str, versions: list[int]) -> _Match:
    """Find the first interface with a matching address, else the first with a matching name."""
    for interface in underlay.interfaces:
        for address in interface.best(versions[0]):
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


def _by_default_route(underlay: Underlay, versions: list[int]) -> _Match:
    found = {version: underlay.by_index(underlay.defaults.get(version, 0)) for version in versions}
    for version, interface in found.items():
        if interface is None:
            raise ExternalError(
                f"failed to get default{' v6' * (version == 6)} interface: the main table has no"
                f" default route of IPv{version}; name the interface with --iface"
            )
    first, last = found[versions[0]], found[versions[-1]]
    if first is None or last is None or first != last:
        raise ExternalError(
            f"v6 default route interface {last and last.name} must be the same with v4 default"
            f" route interface {first and first.name}; name the interface with --iface"
        )
    return _Match(first)


def _external(match: _Match, wishes: Options, versions: list[int]) -> External:
    interface = match.interface
    if interface.mtu == 0:
        raise ExternalError(f"failed to determine MTU for {interface.name} interface")
    found: dict[int, AnyAddress] = {}
    for version in versions:
        if match.address is not None and match.address.version == version:
            found[version] = match.address
        elif best := interface.best(version):
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

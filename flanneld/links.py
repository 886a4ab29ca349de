"""The node's interfaces and addresses, of which one is to the other nodes.  Values."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, NamedTuple

from flanneld.desired import network_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress, AnyNetwork

IFA_F_TEMPORARY = 0x01  # of an IPv6 address; of an IPv4 one the bit says secondary
IFA_F_DEPRECATED = 0x20
IFA_F_PERMANENT = 0x80


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of addresses before one is chosen.

    ``held`` are those in this node's lease, ``others`` those in other nodes' leases, ``pods`` this
    node's subnets; ``now`` is the name of the interface in use, "" at the start.  ``asked`` are
    addresses that the store wants this node to have, for want of flags that do.
    """

    held: frozenset[AnyAddress] = frozenset()
    others: frozenset[AnyAddress] = frozenset()
    pods: tuple[AnyNetwork, ...] = ()
    now: str = ""
    asked: tuple[AnyAddress, ...] = ()


NOTHING = Known()


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface, with its IFA_F_* flags (linux/if_addr.h) and prefix length."""

    address: AnyAddress
    flags: int = IFA_F_PERMANENT
    length: int = 24

    @property
    def network(self) -> AnyNetwork:
        """What is reached without a gateway because of it."""
        make = IPv4Network if self.address.version == 4 else IPv6Network
        return make((int(self.address), self.length), strict=False)


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its addresses in the kernel's order; ``mtu`` in bytes.

    ``kind``, ``alias`` and ``mac`` are the kernel's, "" for none; ``running``: it has a carrier.
    """

    index: int
    name: str
    mtu: int
    addresses: tuple[InterfaceAddress, ...] = ()
    kind: str = ""
    alias: str = ""
    mac: str = ""
    running: bool = True

    def best(
        self, version: int, known: Known = NOTHING, source: AnyAddress | None = None
    ) -> list[AnyAddress]:
        """Addresses of a family, best first.

        This node's by its lease leads; what another node has published comes last.  Then those that
        stay where they are: global ones, ``source`` (of the default route), no second ones, no lone
        addresses of keepalived's kind (of full length, without an end), no temporary ones.
        Deprecated ones do not count: they are about to go.
        """
        usable = [
            entry
            for entry in self.addresses
            if entry.address.version == version and not entry.flags & IFA_F_DEPRECATED
        ]

        def rank(entry: InterfaceAddress) -> tuple[bool, ...]:
            address = entry.address
            preference = (address not in known.held, address in known.others, address.is_link_local)
            return (*preference, address != source, *_wandering(entry))

        return [entry.address for entry in sorted(usable, key=rank)]

    def owns(self, address: AnyAddress) -> bool:
        """Whether the address is one of the interface's."""
        return any(entry.address == address for entry in self.addresses)

    @property
    def is_flannels(self) -> bool:
        """Whether a flannel has made it: by its alias, or by its name if it is a virtual device."""
        return network_of(self.alias) is not None or bool(
            self.kind and self.name.startswith("flannel")
        )

    def has_pods(self, conf: NetConf, known: Known) -> bool:
        """Whether it is the pods' bridge: it has an address of this node's subnets.

        Or, if those are not known, the first address of a subnet of the network.
        """
        return self.kind == "bridge" and any(
            any(entry.address in subnet for subnet in known.pods) or _is_gateway(entry, conf)
            for entry in self.addresses
        )


def _wandering(entry: InterfaceAddress) -> tuple[bool, ...]:
    """Say by what an address looks like one that goes from node to node, or goes at all."""
    permanent = bool(entry.flags & IFA_F_PERMANENT)
    lone = permanent and entry.length == entry.address.max_prefixlen
    second = bool(entry.flags & IFA_F_TEMPORARY)
    if entry.address.version == 4:
        return lone, permanent, second  # one of DHCP is the node's own
    return lone, not permanent, second


def _is_gateway(entry: InterfaceAddress, conf: NetConf) -> bool:
    pool = conf.pool if entry.address.version == 4 else conf.pool6
    return (
        pool is not None
        and entry.address in pool.network
        and entry.length == pool.length
        and int(entry.address) == int(entry.network.network_address) + 1
    )


class Way(NamedTuple):
    """A route of the main table; ``link`` is an ifindex, ``gateway`` None: it is on the link."""

    link: int
    destination: AnyNetwork
    gateway: AnyAddress | None = None
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Underlay:
    """What the kernel has: interfaces, and by IP version those of default routes, the best first.

    ``sources`` are the source addresses that the best default routes name.  ``reach`` is the
    interface, and the source address, of the route to ``--iface-can-reach``.  ``ways`` are none of
    flannel's devices, and none that a routing daemon has made.
    """

    interfaces: tuple[Interface, ...]
    defaults: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    sources: Mapping[int, AnyAddress] = field(default_factory=dict)
    reach: tuple[int, AnyAddress | None] | None = None
    ways: tuple[Way, ...] = ()

    def by_index(self, index: int) -> Interface | None:
        """Find an interface by its number."""
        return next((one for one in self.interfaces if one.index == index), None)

    def lead(self, interface: Interface, others: Collection[AnyAddress]) -> bool:
        """Whether there are others, and the ways to most of them are this interface's.

        Not to all: a few may publish nonsense.
        """
        ranked = sorted(self.ways, key=lambda way: (-way.destination.prefixlen, way.metric))
        found = (
            next((way.link for way in ranked if address in way.destination), 0)
            for address in others
        )
        led = sum(link == interface.index for link in found)
        return bool(others) and 2 * led >= len(others)

    def describe(self) -> str:
        """All interfaces with their addresses, for an error."""
        return ", ".join(
            f"{one.name}:{[str(entry.address) for entry in one.addresses]}"
            for one in self.interfaces
        )

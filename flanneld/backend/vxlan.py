"""vxlan: a device a family, and for each peer a neighbour, an FDB entry and a route.

As in the Go daemon (pkg/backend/vxlan): the device has the base address of the node's subnet, so
that a peer's base address stands for the peer, and all ARP is answered beforehand. Different: the
tunnel starts at the interface's own address, not at the published one, so that NAT between nodes
works; an IPv6 device has an MTU of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from flanneld import config, desired
from flanneld.backend import direct, peers
from flanneld.backend.peers import Unusable
from flanneld.desired import Address, Desired, Forward, Neighbour, Route, Vxlan
from flanneld.lease import Attributes
from flanneld.plain import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from flanneld.backend.base import External, Identity
    from flanneld.backend.peers import Peer
    from flanneld.config import NetConf
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.lease import Lease

PORT = 8472  # the kernel's own, where the configuration names none
OVERHEAD = {4: 50, 6: 70}
"""Bytes of an outer IP, UDP and VXLAN header and the inner Ethernet header."""

LEAST_MTU = {4: 68, 6: 1280}
"""What IP demands of a link (RFC 791, RFC 8200)."""

_LONGEST_NAME = 15  # IFNAMSIZ, without its NUL
_OCTET = re.compile("[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys of ``Backend``; ``mtu`` is the underlay's, 0: that of the external interface.

    ``tx_checksum_offload`` is None if the key is absent: then a udev rule or a person may set it.
    """

    vni: int
    port: int
    mtu: int
    gbp: bool
    learning: bool
    direct_routing: bool
    tx_checksum_offload: bool | None


def settings(conf: Mapping[str, Any]) -> Settings:
    """Read the backend's object; ``config.ConfigError`` if a value is wrong."""
    return Settings(
        vni=config.number(conf, "VNI", default=1, largest=0xFFFFFF),
        port=config.number(conf, "Port", default=0, largest=0xFFFF),
        mtu=config.number(conf, "MTU", default=0, largest=0xFFFF),
        gbp=config.boolean(conf, "GBP", default=False),
        learning=config.boolean(conf, "Learning", default=False),
        direct_routing=config.boolean(conf, "DirectRouting", default=False),
        tx_checksum_offload=_choice(conf, "TxChecksumOffload"),
    )


def _choice(conf: Mapping[str, Any], key: str) -> bool | None:
    absent = config.lookup(conf, key, None) is None
    return None if absent else config.boolean(conf, key, default=True)


class VxlanBackend:
    """The backend ``vxlan`` of one network."""

    name = "vxlan"

    def __init__(self, conf: NetConf) -> None:
        """Take the network's configuration; ``config.ConfigError`` if it cannot be."""
        self._settings = settings(conf.backend)
        self.port = self._settings.port or PORT
        self._networks = tuple(net for net in (conf.network, conf.network6) if net is not None)
        vni = self._settings.vni
        self.devices = (
            f"flannel.{vni}" if conf.network is not None else "",
            f"flannel-v6.{vni}" if conf.network6 is not None else "",
        )
        for device in self.devices:
            if len(device) > _LONGEST_NAME:
                raise config.ConfigError(
                    f"VNI {vni} makes the device name {device}, of more than {_LONGEST_NAME}"
                    " characters: choose a smaller one"
                )

    def attributes(self, external: External, identity: Identity) -> Attributes:
        """Publish the MAC of each device: peers send to it without asking."""
        return Attributes(
            public_ip=external.public_ip,
            public_ip6=external.public_ip6,
            backend_type=self.name,
            backend_data=self._published(self.devices[0], identity.mac),
            backend_data6=self._published(self.devices[1], identity.mac6),
        )

    def _published(self, device: str, mac: str) -> dict[str, Any] | None:
        return {"VNI": self._settings.vni, "VtepMAC": mac} if device else None

    def mtu(self, external: External) -> int:
        """Give the least MTU of the devices."""
        return min(self._mtu(network.version, external) for network in self._networks)

    def _mtu(self, version: int, external: External) -> int:
        under = self._settings.mtu or external.mtu
        mtu = under - OVERHEAD[version]
        if mtu < LEAST_MTU[version]:
            raise config.ConfigError(
                f"an MTU of {under} is {OVERHEAD[version]} bytes too small for VXLAN: IPv{version}"
                f" needs {LEAST_MTU[version]} inside"
            )
        return mtu

    def plan(
        self, own: Lease, leases: Iterable[Lease], external: External, identity: Identity
    ) -> Desired:
        """Plan the devices, and the paths to all peers by the type each publishes."""
        found = peers.check(own, leases, external, self._networks)
        devices: dict[int, Vxlan] = {
            device.local.version: device for device in self._devices(external, identity)
        }
        paths = _Paths(self._settings, devices, external)
        # Of two with one MAC the newer is programmed: a node that has moved leaves a lease behind.
        for peer in sorted(found.usable, key=lambda peer: peer.since, reverse=True):
            try:
                paths.add(peer)
            except Unusable as error:
                found.problems.append(f"{peer}: {error}")
        return Desired(
            devices=frozenset(devices.values()),
            addresses=frozenset(self._addresses(own)),
            neighbours=frozenset(paths.neighbours),
            forwards=frozenset(paths.forwards),
            routes=frozenset(paths.routes),
            networks=frozenset(self._networks),
            problems=tuple(found.problems),
            warnings=tuple(found.warnings),
        )

    def _devices(self, external: External, identity: Identity) -> Iterable[Vxlan]:
        ends = {4: (external.address, identity.mac), 6: (external.address6, identity.mac6)}
        for network in self._networks:
            yield self._device(network, *ends[network.version], external)

    def _addresses(self, own: Lease) -> Iterable[Address]:
        for network in self._networks:
            subnet = own.subnet if network.version == 4 else own.subnet6
            if subnet is not None:
                name = self._name(network.version)
                yield Address(name, ip_interface((subnet.network_address, subnet.max_prefixlen)))

    def _name(self, version: int) -> str:
        return self.devices[0 if version == 4 else 1]

    def _device(
        self,
        network: AnyNetwork,
        local: AnyAddress | None,
        mac: str,
        external: External,
    ) -> Vxlan:
        name = self._name(network.version)
        if local is None:
            raise config.ConfigError(
                f"{external.name} has no IPv{network.version} address for the tunnels of {name}"
            )
        wanted = self._settings
        return Vxlan(
            name=name,
            vni=wanted.vni,
            port=wanted.port,
            underlay=external.name,
            local=local,
            mac=mac,
            mtu=self._mtu(network.version, external),
            gbp=wanted.gbp,
            learning=wanted.learning,
            tx_checksum_offload=wanted.tx_checksum_offload,
            alias=desired.alias(network),
        )


class _Paths:
    """The entries for peers, as they are added."""

    def __init__(
        self, settings: Settings, devices: Mapping[int, Vxlan], external: External
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._external = external
        self._holders: dict[tuple[int, str], Peer] = {}
        self.neighbours: set[Neighbour] = set()
        self.forwards: set[Forward] = set()
        self.routes: set[Route] = set()

    def add(self, peer: Peer) -> None:
        """Plan the path to a peer by what it publishes; Unusable."""
        if peer.backend_type == "host-gw":
            self.routes.add(direct.route(peer, self._external))
        elif peer.backend_type != "vxlan":
            raise peers.foreign(peer)
        elif self._settings.direct_routing and self._external.is_onlink(peer.public_ip):
            self.routes.add(direct.route(peer, self._external))
        else:
            self._tunnel(peer, self._devices[peer.subnet.version].name)

    def _tunnel(self, peer: Peer, link: str) -> None:
        mac = self._mac(peer)
        base = peer.subnet.network_address
        self.neighbours.add(Neighbour(link, base, mac))
        self.forwards.add(Forward(link, mac, peer.public_ip))
        self.routes.add(Route(link, peer.subnet, base, onlink=True))

    def _mac(self, peer: Peer) -> str:
        data = peer.data or {}
        vni = config.lookup(data, "VNI", self._settings.vni)
        if vni != self._settings.vni:
            raise Unusable(f"it publishes VNI {quoted(vni)}, this network has {self._settings.vni}")
        mac = _unicast(config.lookup(data, "VtepMAC", None))
        if mac == self._devices[peer.subnet.version].mac:
            raise Unusable(
                f"it publishes this node's own VtepMAC {mac}: a lease from before, or a clone of"
                " this node"
            )
        holder = self._holders.setdefault((peer.subnet.version, mac), peer)
        if holder is not peer:
            raise Unusable(f"it publishes the VtepMAC {mac}, which {holder} has too")
        return mac


def _unicast(text: object) -> str:
    """Read a MAC, written with colons or dashes; Unusable if it is none of a device."""
    octets = text.lower().replace("-", ":").split(":") if isinstance(text, str) else []
    if len(octets) == 6 and all(_OCTET.fullmatch(octet) for octet in octets):
        first = int(octets[0], 16)
        if any(int(octet, 16) for octet in octets) and not first & 1:
            return ":".join(octets)
    raise Unusable(f"it publishes the VtepMAC {quoted(text)}, which is no unicast MAC address")

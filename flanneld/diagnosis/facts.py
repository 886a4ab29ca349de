"""What there is to know about the way from one address to another and back: read, not judged."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Literal

from flanneld.diagnosis import pods
from flanneld.diagnosis.leg import Follower
from flanneld.diagnosis.paths import paths
from flanneld.diagnosis.subject import public_ip
from flanneld.firewall.packet import Packet
from flanneld.firewall.verdict import translations
from flanneld.kernel import forwarding
from netlink import sysctl
from netlink.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.diagnosis.leg import Course, Leg, Taken
    from flanneld.diagnosis.node import View
    from flanneld.diagnosis.paths import PeerPath
    from flanneld.diagnosis.pods import PodsLink, Uplink
    from flanneld.firewall.chains import Firewall
    from flanneld.lease import Lease

NUD_FAILED = 0x20

Kind = Literal["pod", "host", "peer", "node", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Place:
    """What an address is: of a pod here, this host's own, of a peer's pod, a peer's own, or none.

    ``lease`` is the peer's, None if nobody has leased it. ``path`` is that to its subnet.
    """

    address: AnyAddress
    kind: Kind
    lease: Lease | None = None
    path: PeerPath | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is on this node."""
        return self.kind in {"pod", "host"}


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The outer packets between this node and a peer's public address, and the way there.

    The legs are None where nothing is put around a packet. ``hop_state`` is the state (NUD_*) of
    the neighbour that they go to first; None if there is no entry.
    """

    peer: Place
    taken: Taken
    hop_state: int | None
    sent: Leg | None
    received: Leg | None


@dataclass(frozen=True, slots=True)
class Facts:
    """The two addresses, this node, and what the kernel says of the way.

    ``out`` is the leg from source to target, ``back`` that of the answer; None if one of the ends
    is not reached, or both are on one link. ``is_on`` is None if the kernel lacks the family.
    ``to`` and ``from_pod`` are the routes to the ends that are here.  ``endpoints`` are what rules
    put in place of the target.
    """

    source: Place
    target: Place
    view: View
    is_on: bool | None
    link: PodsLink
    uplink: Uplink
    routes: Mapping[AnyAddress, Taken]
    out: Leg | None = None
    back: Leg | None = None
    tunnels: tuple[Tunnel, ...] = ()
    endpoints: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    filters_bridge: bool = False

    def tunnel(self, place: Place) -> Tunnel | None:
        """Give that of a peer; None if there is none."""
        return next((one for one in self.tunnels if one.peer is place), None)


def holder(view: View, address: AnyAddress) -> Lease | None:
    """Find the lease that an address is of: this node's, or a peer's."""
    for lease in (view.state.lease, *view.state.peers):
        for subnet in (lease.subnet, lease.subnet6):
            if subnet is not None and _is_in(address, subnet):
                return lease
    return None


def _is_in(address: AnyAddress, subnet: AnyNetwork) -> bool:
    return address.version == subnet.version and address in subnet


def gather(view: View, firewall: Firewall, source: AnyAddress, target: AnyAddress) -> Facts:
    """Ask the kernel. OSError."""
    with Handle() as handle:
        return _Gathering(view, Follower(handle, firewall)).facts(source, target)


class _Gathering:
    def __init__(self, view: View, follower: Follower) -> None:
        self._view = view
        self._follower = follower
        self._link = pods.PodsLink()

    def facts(self, source: AnyAddress, target: AnyAddress) -> Facts:
        version = source.version
        subnet = self._view.subject.subnet(version)
        if subnet is not None:
            self._link = pods.find(self._follower.handle, subnet)
        ends = (self._place(source), self._place(target))
        one, other = ends
        firewall = self._follower.firewall
        asked = Packet(ip_network(source), ip_network(target), iif=self._entry(one))
        return Facts(
            source=one,
            target=other,
            view=self._view,
            is_on=forwarding.is_on(version),
            link=self._link,
            routes={end.address: self._follower.take(end.address) for end in ends},
            out=self._leg(one, other, "new"),
            back=self._leg(other, one, "established"),
            tunnels=tuple(self._tunnels(ends)),
            endpoints=translations(firewall, "prerouting", asked),
            unknown=firewall.unknown,
            uplink=pods.uplink(
                self._follower.handle,
                self._view.subject.external.name,
                self._view.subject.address(version),
            ),
            filters_bridge=_filters_bridge(version),
        )

    def _place(self, address: AnyAddress) -> Place:
        view, lease = self._view, holder(self._view, address)
        if lease is not None and lease is not view.state.lease:
            path = next((path for path in paths(view) if _is_in(address, path.subnet)), None)
            return Place(address, "peer", lease, path)
        if pods.local_link(self._follower.handle, address) is not None:
            return Place(address, "host")
        if lease is not None:
            return Place(address, "pod")
        network = view.subject.network(address.version)
        if network is not None and address in network:
            return Place(address, "peer")
        for peer in view.state.peers:
            if address in {peer.attributes.public_ip, peer.attributes.public_ip6}:
                return Place(address, "node", peer)
        return Place(address, "elsewhere")

    def _entry(self, place: Place) -> str:
        """Name the link by which packets of an address come in; "" if they are made here."""
        if place.kind == "host":
            return ""
        if place.kind == "pod":
            return self._link.link.name if self._link.link is not None else ""
        if place.path is not None:
            return place.path.link
        link = self._follower.take(place.address).link
        return link.name if link is not None else ""

    def _leg(self, source: Place, target: Place, state: str) -> Leg | None:
        iif = self._entry(source)
        if source.kind != "host" and not iif:
            return None
        course: Course = "through"
        if source.kind == "host":
            course = "out"
        elif target.kind == "host":
            course = "in"
        packet = Packet(
            ip_network(source.address),
            ip_network(target.address),
            iif=iif,
            state=state,
            to_host=course == "in",
        )
        return self._follower.follow(course, packet, (source.address, target.address))

    def _tunnels(self, ends: Iterable[Place]) -> Iterable[Tunnel]:
        for end in ends:
            if end.kind != "peer" or end.lease is None:
                continue
            far = public_ip(end.lease, end.address.version)
            if far is not None:
                yield self._tunnel(end, far)

    def _tunnel(self, peer: Place, far: AnyAddress) -> Tunnel:
        subject = self._view.subject
        own, name = subject.address(far.version), subject.external.name
        sent = received = None
        link = peer.path.link if peer.path is not None else ""
        bound = name if any(link == device.name for device in subject.desired.devices) else ""
        taken = self._follower.take(far, oif=bound)
        if own is not None and link and subject.is_tunnel(link):
            outer = Packet(
                ip_network(own), ip_network(far), protocol="udp", dport=subject.port, oif=bound
            )
            inner = Packet(
                ip_network(far),
                ip_network(own),
                protocol="udp",
                dport=subject.port,
                iif=name,
                to_host=True,
            )
            sent = self._follower.follow("out", outer, (own, far))
            received = self._follower.follow("in", inner, (far, own))
        return Tunnel(peer, taken, self._hop_state(far, taken), sent, received)

    def _hop_state(self, far: AnyAddress, taken: Taken) -> int | None:
        if taken.route is None or not taken.route.index:
            return None
        hop = str(taken.route.gw) if taken.route.gw is not None else str(far)
        entries = self._follower.handle.neighbours(taken.route.index, far.version)
        return next((entry.state for entry in entries if str(entry.address) == hop), None)


def _filters_bridge(version: int) -> bool:
    """Whether packet filters see what a bridge passes on."""
    name = "bridge-nf-call-iptables" if version == 4 else "bridge-nf-call-ip6tables"
    return sysctl.read(f"net/bridge/{name}") == "1"

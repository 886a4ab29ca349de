"""Whether a packet of some pod gets through this node, to some peers and back: for readiness.

What the daemon has programmed it compares by itself.  This looks at all else that the kernel asks:
switches, packet filters, rules of policy routing, the pods' link, this node's address.  A leg is
followed for one peer of each way there is, and for some more: nodes can be thousands.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from flanneld.desired import is_inside
from flanneld.diagnosis import near, passage, pods
from flanneld.diagnosis.leg import Follower
from flanneld.diagnosis.subject import public_ip, subnet_of
from flanneld.firewall.packet import Packet
from flanneld.kernel import forwarding, underlay
from flanneld.kernel.connections import overflow
from flanneld.readiness import stamp
from netlink.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flanneld.backend.base import External
    from flanneld.desired import AnyAddress, AnyNetwork
    from flanneld.diagnosis.leg import Course, Leg
    from flanneld.diagnosis.pods import PodsLink
    from flanneld.diagnosis.step import Step
    from flanneld.diagnosis.subject import Subject
    from flanneld.firewall.chains import Firewall

MOST = 8  # peers whose ways are followed


@dataclass(frozen=True, slots=True)
class Found:
    """``blocking`` is in the way of pods' packets, ``others`` may be; one sentence each.

    ``link`` is the link that pods are on, "" if there is none.
    """

    blocking: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    link: str = ""


def examine(subject: Subject, firewall: Firewall) -> Found:
    """Look at everything, and change nothing; OSError."""
    with Handle() as handle:
        looking = _Looking(subject, Follower(handle, firewall))
        for version in subject.versions:
            looking.look(version)
    looking.others += firewall.unknown
    looking.others += overflow()
    looking.blocking += _ended(subject)
    blocking = tuple(dict.fromkeys(looking.blocking))
    others = (text for text in dict.fromkeys(looking.others) if text not in blocking)
    return Found(blocking, tuple(others), looking.link)


def _ended(subject: Subject) -> Iterator[str]:
    expires = subject.lease.expires
    if expires is not None and expires < time.time():
        yield (
            f"the lease of {subject.lease.key} ended at {stamp(expires)} and is not renewed: other"
            " nodes have forgotten this one. Look at the store"
        )


class _Looking:
    def __init__(self, subject: Subject, follower: Follower) -> None:
        self._subject = subject
        self._follower = follower
        self.blocking: list[str] = []
        self.others: list[str] = []
        self.link = ""

    def look(self, version: int) -> None:
        """Look at one family."""
        subject = self._subject
        subnet = subject.subnet(version)
        if subnet is None:
            return
        link = pods.find(self._follower.handle, subnet, subject.known)
        trouble = near.trouble(link, subnet, subject.known)
        self.blocking += [] if trouble is None else [str(trouble)]
        self.blocking += self._uplink(version)
        self.blocking += self._longer(version)
        self._switches(version, link)
        if link.link is not None:
            self.link = link.link.name
        if trouble is None:
            for way in _ways(subject, version):
                self._follow(way, subnet, link)

    def _uplink(self, version: int) -> Iterator[str]:
        external, address = self._subject.external, self._subject.address(version)
        own = pods.uplink(self._follower.handle, external.name, address)
        step = near.uplink(external, address, own)
        if not step.is_ok:
            yield str(step)

    def _longer(self, version: int) -> Iterator[str]:
        """Find routes of others for a part of a peer's subnet: they come before the daemon's."""
        network = self._subject.network(version)
        inside = [
            entry
            for entry in underlay.routes(self._follower.handle, version)
            if network is not None and is_inside(entry.destination, (network,))
        ]
        subnets = {subnet_of(lease, version) for lease in self._subject.peers} if inside else set()
        for entry in inside:
            longer = range(entry.destination.prefixlen)
            wider = {entry.destination.supernet(new_prefix=length) for length in longer}
            for subnet in wider & subnets:
                taken = self._follower.take(entry.destination[0])
                yield (
                    f"packets to {entry.destination}, a part of {subnet}, take another route:"
                    f" {taken.text or taken.refusal}. Remove it, if it is not wanted"
                )

    def _switches(self, version: int, link: PodsLink) -> None:
        """See whether the node passes packets on, before and after the first pod."""
        if forwarding.is_on(version) is not False:
            return
        switch = forwarding.SWITCH[version]
        if link.link is None and version not in self._subject.forwarded:
            self.others.append(
                f"{switch} is 0: this node forwards no packet, of a pod or to one. The plugins set"
                f" it to 1 for the first pod; if something sets it back: sysctl -w {switch}=1, and"
                " look into /etc/sysctl.d"
            )
        elif link.link is None:
            self.blocking.append(str(passage.off(switch, "what pods send")))

    def _follow(self, way: Way, subnet: AnyNetwork, link: PodsLink) -> None:
        """Follow packets to a peer and from it."""
        network = self._subject.network(subnet.version) or subnet
        if link.link is not None:
            pair = None if way.peer is None else (subnet[-2], way.peer[-2])
            to = Packet(subnet, way.peer or network, iif=link.link.name, oif=way.link)
            back = Packet(way.peer or network, subnet, iif=way.link, oif=link.link.name)
            self._judge("through", to, pair, lambda leg: passage.routed(leg, way.link))
            turned = None if pair is None else (pair[1], pair[0])
            self._judge("through", back, turned, lambda leg: passage.routed(leg, back.oif))
        own = self._subject.address(subnet.version)
        if not self._subject.is_tunnel(way.link) or own is None:
            return
        self._tunnel(way, own)

    def _tunnel(self, way: Way, own: AnyAddress) -> None:
        external, port = self._subject.external, self._subject.port
        is_bound = any(way.link == device.name for device in self._subject.desired.devices)
        bound = external.name if is_bound or way.public_ip is None else ""
        others = ip_network(way.public_ip) if way.public_ip is not None else _onlink(external, own)
        out = Packet(ip_network(own), others, oif=bound, protocol="udp", dport=port)
        into = Packet(
            others, ip_network(own), iif=external.name, protocol="udp", dport=port, to_host=True
        )
        pair = None if way.public_ip is None else (own, way.public_ip)
        self._judge("out", out, pair, lambda leg: passage.leaves(leg, way.link))
        turned = None if pair is None else (pair[1], pair[0])
        self._judge("in", into, turned, passage.arrives)

    def _judge(
        self,
        course: Course,
        packet: Packet,
        pair: tuple[AnyAddress, AnyAddress] | None,
        routed: Callable[[Leg], Step],
    ) -> None:
        leg = self._follower.follow(course, packet, pair)
        for look in (passage.forwarding, routed, passage.filtered):
            step = look(leg)
            if not step.is_ok:
                self.blocking.append(str(step))
                return
        self.others += passage.doubts(leg)


@dataclass(frozen=True, slots=True)
class Way:
    """A peer's subnet, and by which link; ``peer`` None stands for peers that may come."""

    link: str
    peer: AnyNetwork | None = None
    public_ip: AnyAddress | None = None


def _ways(subject: Subject, version: int) -> list[Way]:
    """Choose the peers whose ways are followed: of each link one, and then as they come."""
    routes: dict[AnyNetwork | None, str] = {
        route.destination: route.link
        for route in subject.desired.routes
        if route.link and route.destination.version == version
    }
    covered, network = subject.desired.covered, subject.network(version)
    found = [
        Way(link, subnet, public_ip(lease, version))
        for lease in subject.peers
        if (subnet := subnet_of(lease, version)) is not None
        and (link := routes.get(subnet) or (subnet in covered and routes.get(network)))
    ]
    if not found:
        devices = (one.name for one in subject.desired.devices if one.local.version == version)
        return [Way(next(devices, subject.external.name))]
    first = {way.link: way for way in reversed(found)}
    return list(dict.fromkeys([*first.values(), *found]))[:MOST]


def _onlink(external: External, own: AnyAddress) -> AnyNetwork:
    """Give the prefix of the underlay that this node is in."""
    return next((net for net in external.onlink if own in net), ip_network(own))

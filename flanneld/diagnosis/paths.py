"""The path to each peer, part by part: is it in the kernel as it should be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flanneld.desired import Vxlan, is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld.desired import AnyAddress, AnyNetwork, Forward, Neighbour, Route
    from flanneld.diagnosis.node import View

Part = Literal["ok", "missing", "wrong", "-"]
"""``-``: the path has no such part."""

_OF_ACTION: dict[str, Part] = {"add": "missing", "change": "wrong", "replace": "wrong"}


@dataclass(frozen=True, slots=True)
class PeerPath:
    """How a subnet of a peer is reached: by the route to ``destination``, the subnet or more.

    ``link`` is "" if it is not reached; then ``problem`` says why. ``mtu`` is the link's, in bytes,
    0 if there is none.
    """

    subnet: AnyNetwork
    public_ip: AnyAddress | None
    backend_type: str
    destination: AnyNetwork | None
    link: str
    device: Part
    neighbour: Part
    fdb: Part
    route: Part
    mtu: int
    problem: str

    @property
    def is_ok(self) -> bool:
        """Whether this node sends to the peer as it should."""
        parts = (self.device, self.neighbour, self.fdb, self.route)
        return not self.problem and all(part in {"ok", "-"} for part in parts)


class Judge:
    """Says of each desired value whether the kernel has it."""

    def __init__(self, view: View) -> None:
        """Take the comparison apart."""
        self._links = view.present.links
        self._foreign = view.difference.foreign
        self._parts = {
            change.value: _OF_ACTION[change.action]
            for change in view.difference.changes
            if change.action != "remove"
        }

    def part(self, value: Vxlan | Neighbour | Forward | Route | None) -> Part:
        """Judge one; None is a part that there is not."""
        if value is None:
            return "-"
        if isinstance(value, Vxlan):
            if value.name in self._foreign:
                return "wrong"
            return self._parts.get(value, "ok") if value.name in self._links else "missing"
        return "missing" if value.link in self._foreign else self._parts.get(value, "ok")


def paths(view: View) -> Iterator[PeerPath]:
    """Judge the path to each subnet of each peer, in the order of the subnets."""
    judge = Judge(view)
    routes = {route.destination: route for route in view.desired.routes}
    neighbours = {(entry.link, entry.address): entry for entry in view.desired.neighbours}
    forwards = {(entry.link, entry.mac): entry for entry in view.desired.forwards}
    devices = {device.name: device for device in view.desired.devices}
    for subnet, public_ip, kind in sorted(_subnets(view), key=lambda peer: _order(peer[0])):
        route = routes.get(subnet)
        if route is None and subnet in view.desired.covered:
            route = _covering(subnet, view.desired.routes)
        neighbour = route and neighbours.get((route.link, subnet.network_address))
        forward = neighbour and forwards.get((neighbour.link, neighbour.mac))
        link = view.present.links.get(route.link) if route else None
        yield PeerPath(
            subnet=subnet,
            public_ip=public_ip,
            backend_type=kind,
            destination=route.destination if route else None,
            link=route.link if route else "",
            device=judge.part(devices.get(route.link)) if route else "-",
            neighbour=judge.part(neighbour or None),
            fdb=judge.part(forward or None),
            route=judge.part(route),
            mtu=link.mtu if link is not None else 0,
            problem="" if route else _problem(view, subnet),
        )


def _covering(subnet: AnyNetwork, routes: Iterable[Route]) -> Route | None:
    """Find the route of a backend that sends the whole network one way."""
    wide = (
        route for route in routes if not route.blackhole and is_inside(subnet, [route.destination])
    )
    return max(wide, key=lambda route: route.destination.prefixlen, default=None)


def _subnets(view: View) -> Iterator[tuple[AnyNetwork, AnyAddress | None, str]]:
    for lease in view.state.peers:
        told = lease.attributes
        if lease.subnet is not None and view.state.conf.network is not None:
            yield lease.subnet, told.public_ip, told.backend_type
        if lease.subnet6 is not None and view.state.conf.network6 is not None:
            yield lease.subnet6, told.public_ip6, told.backend_type


def _order(subnet: AnyNetwork) -> tuple[int, int]:
    return subnet.version, int(subnet.network_address)


def _problem(view: View, subnet: AnyNetwork) -> str:
    """Find what the planner said of a subnet: its sentences begin with it."""
    said = (*view.desired.problems, *view.desired.warnings)
    whole = "the backend of this network makes no path"
    return next((text for text in said if text.startswith(f"{subnet}")), whole)

"""What has to change, so that the kernel holds what it should. Pure: two values in, a list out.

Knows: what is provably ours. A device: by its alias, or by name, kind, VNI and an address inside
the network, as Go makes it. A route: by our protocol number and a destination inside the network;
by Go's only where nothing but a flannel adds such a route. What lies on a device of ours.
Must not know: sockets, messages.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from flanneld.desired import Forward, Neighbour, Vxlan, alias, is_inside, network_of
from flanneld.kernel.entries import RTPROT_FLANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flanneld.desired import Address, AnyNetwork, Desired, Route
    from flanneld.kernel.entries import RouteEntry
    from flanneld.kernel.present import Present
    from flanneld.kernel.vxlan import VxlanLink

Keyed = TypeVar("Keyed", Neighbour, Forward)
Action = Literal["add", "change", "replace", "remove"]
_SIGNS = {"add": "+", "change": "~", "replace": "!", "remove": "-"}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do. ``value`` is what is wanted, or, to be removed, what is there.

    A device is changed in what ``what`` names, or replaced by another of its name. A route takes
    the place of ``held``.
    """

    action: Action
    value: Vxlan | Address | Neighbour | Forward | Route | VxlanLink
    what: tuple[str, ...] = ()
    held: tuple[RouteEntry, ...] = ()

    def __str__(self) -> str:
        what = f" ({', '.join(self.what)})" if self.what else ""
        return f"{_SIGNS[self.action]} {self.value}{what}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes, devices' ones apart, and what stands in the way of the rest."""

    devices: tuple[Change, ...] = ()
    entries: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.devices or self.entries or self.problems)


def difference(desired: Desired, present: Present) -> Difference:
    """Compare. What lies on a device that is to be made or replaced counts as missing."""
    problems: list[str] = []
    devices = [*_stale_devices(desired, present)]
    for wanted in sorted(desired.devices, key=lambda device: device.name):
        devices += _device(wanted, desired, present, problems)
    fresh = {
        change.value.name
        for change in devices
        if isinstance(change.value, Vxlan) and change.action != "change"
    }
    ours = {device.name for device in desired.devices}
    entries = (
        *_sorted(_addresses(desired, present, fresh)),
        *_sorted(
            _keyed(
                desired.neighbours,
                (entry for entry in present.neighbours if entry.link not in fresh),
                ours,
                lambda entry: entry.address,
            )
        ),
        *_sorted(
            _keyed(
                desired.forwards,
                (entry for entry in present.forwards if entry.link not in fresh),
                ours,
                lambda entry: entry.mac,
            )
        ),
        *_sorted(_routes(desired, present)),
    )
    return Difference(tuple(devices), entries, tuple(problems))


# --------------------------------------------------------------------------------------- devices


def is_ours(link: VxlanLink, networks: Iterable[AnyNetwork], present: Present) -> bool:
    """Whether a device is provably a flannel's of one of these networks."""
    name = link.link.name
    if link.link.alias:
        network = network_of(link.link.alias)
        return network is not None and is_inside(network, networks)
    if name not in {f"flannel.{link.vni}", f"flannel-v6.{link.vni}"}:
        return False
    return any(
        address.link == name
        and address.interface.network.prefixlen == address.interface.max_prefixlen
        and is_inside(address.interface.network, networks)
        for address in present.addresses
    )


def _stale_devices(desired: Desired, present: Present) -> Iterator[Change]:
    wanted = {device.name for device in desired.devices}
    if desired.keeps_devices:
        return
    for name, link in present.vxlans.items():
        if name not in wanted and is_ours(link, desired.networks, present):
            yield Change("remove", link)


def _device(
    wanted: Vxlan, desired: Desired, present: Present, problems: list[str]
) -> Iterator[Change]:
    other = present.links.get(wanted.name)
    underlay = present.links.get(wanted.underlay)
    if underlay is None:
        problems.append(f"{wanted.name}: its underlay {wanted.underlay} does not exist")
        return
    if other is None:
        yield Change("add", wanted)
        return
    link = present.vxlans.get(wanted.name)
    if link is None:
        problems.append(
            f"{wanted.name} exists and is {other.kind or 'no virtual device'}, not a VXLAN device:"
            " delete or rename it, or choose another VNI"
        )
        return
    marks = {"", *(alias(network) for network in desired.networks)}
    if link.link.alias not in marks:
        problems.append(
            f"{wanted.name} has the alias {link.link.alias!r}: it belongs to another network;"
            " choose another VNI for this one"
        )
    elif not link.is_like(wanted, underlay.index):
        yield Change("replace", wanted, what=tuple(_unlike(link, wanted, underlay.index, present)))
    else:
        what = tuple(_lacking(link, wanted, present))
        if what:
            yield Change("change", wanted, what)


def _unlike(link: VxlanLink, wanted: Vxlan, underlay: int, present: Present) -> Iterator[str]:
    names = present.names
    pairs = (
        ("vni", link.vni, wanted.vni),
        ("port", link.port, wanted.port or link.port),
        ("underlay", names.get(link.underlay, link.underlay), names.get(underlay, underlay)),
        ("local", link.local, wanted.local),
        ("gbp", link.gbp, wanted.gbp),
        ("learning", link.learning, wanted.learning),
        ("external, group or misses", not link.ordinary, False),
    )
    for name, there, needed in pairs:
        if there != needed:
            yield f"{name} {there} -> {needed}"


def _lacking(link: VxlanLink, wanted: Vxlan, present: Present) -> Iterator[str]:
    """Name what has to be set on a device that can be re-used; ``devices`` sets it all."""
    there = link.link
    if there.mac != wanted.mac:
        yield f"address {there.mac} -> {wanted.mac}"
    if there.mtu != wanted.mtu:
        yield f"mtu {there.mtu} -> {wanted.mtu}"
    if there.alias != wanted.alias:
        yield f"alias {there.alias!r} -> {wanted.alias!r}"
    settings = present.settings.get(wanted.name)
    if settings is not None:
        if settings.accept_ra:
            yield "accept_ra -> 0"
        offload = wanted.tx_checksum_offload
        if offload is not None and settings.tx_checksum_offload is (not offload):
            yield f"tx checksum offload -> {'on' if offload else 'off'}"
    if not there.is_up:
        yield "down -> up"


# --------------------------------------------------------------------------------------- entries


def _addresses(desired: Desired, present: Present, fresh: set[str]) -> Iterator[Change]:
    there = {address for address in present.addresses if address.link not in fresh}
    for address in desired.addresses - there:
        yield Change("add", address)
    ours = {address.link for address in desired.addresses}
    for address in there - desired.addresses:
        if address.link in ours and is_inside(address.interface.network, desired.networks):
            yield Change("remove", address)


def _keyed(
    wanted: frozenset[Keyed], there: Iterable[Keyed], ours: set[str], key: Callable[[Keyed], object]
) -> Iterator[Change]:
    """Compare entries of which the kernel holds one for each key: adding replaces it."""
    found = {(entry.link, key(entry)): entry for entry in there}
    keys = {(entry.link, key(entry)) for entry in wanted}
    for entry in wanted:
        present = found.get((entry.link, key(entry)))
        if present != entry:
            yield Change("add" if present is None else "change", entry)
    for where, entry in found.items():
        if entry.link in ours and where not in keys:
            yield Change("remove", entry)


def _routes(desired: Desired, present: Present) -> Iterator[Change]:
    there: dict[AnyNetwork, list[RouteEntry]] = defaultdict(list)
    for entry in present.routes:
        if entry.metric == 0:
            there[entry.destination].append(entry)
    wanted = {route.destination for route in desired.routes}
    ways = {route.link for route in desired.routes} | {device.name for device in desired.devices}
    for route in desired.routes:
        held = [
            entry
            for entry in there.get(route.destination, ())
            if entry.protocol == RTPROT_FLANNEL
            or present.names.get(entry.hop.ifindex) in ways
            or _is_flannels(entry)
        ]
        right = [entry for entry in held if _is(entry, route, present)]
        wrong = tuple(entry for entry in held if entry not in right[:1])
        if not right:
            yield Change("change" if wrong else "add", route, held=wrong)
        else:
            yield from (Change("remove", present.route(e), held=(e,)) for e in wrong)
    for entry in present.routes:
        if entry.destination in wanted and entry.metric == 0:
            continue
        if _is_stale(entry, desired, present):
            yield Change("remove", present.route(entry), held=(entry,))


def _is(entry: RouteEntry, route: Route, present: Present) -> bool:
    return entry.protocol == RTPROT_FLANNEL and not entry.odd and present.route(entry) == route


def _is_flannels(entry: RouteEntry) -> bool:
    """Whether only a flannel adds such a route: onlink by way of the destination's own base."""
    return entry.hop.onlink and entry.hop.gateway == entry.destination.network_address


def _is_stale(entry: RouteEntry, desired: Desired, present: Present) -> bool:
    link = present.names.get(entry.hop.ifindex)
    on_ours = link in {device.name for device in desired.devices}
    inside = is_inside(entry.destination, desired.networks)
    if entry.protocol == RTPROT_FLANNEL:
        return inside or on_ours
    return on_ours and (inside or _is_flannels(entry))


def _sorted(changes: Iterable[Change]) -> list[Change]:
    """Order by what people read, so that two runs say the same: first what goes."""
    return sorted(changes, key=lambda change: (change.action != "remove", str(change)))

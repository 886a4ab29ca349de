"""What has to change, so that the kernel holds what it should. Pure: two values in, a list out.

Knows: what is provably ours. A device: by its alias, or by name, kind, VNI and an address inside
the network, as Go makes it. A route: by our protocol number and a destination inside the network;
by Go's only where nothing but a flannel adds such a route. What lies on a device of ours.
Must not know: sockets, messages.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from flanneld.desired import Forward, Neighbour, is_inside, network_of
from flanneld.kernel.entries import RTPROT_FLANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flanneld.desired import Address, AnyNetwork, Desired, Route, Vxlan
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
    """Changes, devices' ones apart, and what stands in the way of the rest.

    ``foreign`` are links of wanted names that are not ours: nothing on them is compared.
    """

    devices: tuple[Change, ...] = ()
    entries: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes, devices' first."""
        return (*self.devices, *self.entries)

    def __bool__(self) -> bool:
        return bool(self.devices or self.entries or self.problems)


class _Foreign(Exception):
    """A link of the wanted name is not the daemon's; ``str`` says whose, and what to do."""


def difference(desired: Desired, present: Present) -> Difference:
    """Compare.

    What lies on a device that is to be made or replaced counts as missing; what is wanted on a
    link that is not ours, and what is on it, does not count at all.
    """
    devices = [*_stale_devices(desired, present)]
    problems: list[str] = []
    fresh: set[str] = set()
    foreign: set[str] = set()
    for wanted in sorted(desired.devices, key=lambda device: device.name):
        if wanted.underlay not in present.links:
            problems.append(f"{wanted.name}: its underlay {wanted.underlay} does not exist")
        try:
            change = _device(wanted, desired, present)
        except _Foreign as error:
            problems.append(str(error))
            foreign.add(wanted.name)
            continue
        if change is not None:
            devices.append(change)
            fresh |= {wanted.name} if change.action != "change" else set()
    seen = _seen_without(present, fresh | foreign)
    entries = _entries(_desired_without(desired, foreign) if foreign else desired, seen)
    return Difference(tuple(devices), tuple(entries), tuple(problems), frozenset(foreign))


def _seen_without(present: Present, links: set[str]) -> Present:
    if not links:
        return present
    return replace(
        present,
        addresses=frozenset(one for one in present.addresses if one.link not in links),
        neighbours=frozenset(one for one in present.neighbours if one.link not in links),
        forwards=frozenset(one for one in present.forwards if one.link not in links),
    )


def _desired_without(desired: Desired, links: set[str]) -> Desired:
    return replace(
        desired,
        devices=frozenset(one for one in desired.devices if one.name not in links),
        addresses=frozenset(one for one in desired.addresses if one.link not in links),
        neighbours=frozenset(one for one in desired.neighbours if one.link not in links),
        forwards=frozenset(one for one in desired.forwards if one.link not in links),
        routes=frozenset(one for one in desired.routes if one.link not in links),
    )


def _entries(desired: Desired, present: Present) -> Iterator[Change]:
    ours = {device.name for device in desired.devices}
    yield from _sorted(_addresses(desired, present))
    yield from _sorted(
        _keyed(desired.neighbours, present.neighbours, ours, lambda entry: entry.address)
    )
    yield from _sorted(_keyed(desired.forwards, present.forwards, ours, lambda entry: entry.mac))
    yield from _sorted(_routes(desired, present))


# --------------------------------------------------------------------------------------- devices


def is_ours(link: VxlanLink, networks: Iterable[AnyNetwork], present: Present) -> bool:
    """Whether a device is provably a flannel's of one of these networks."""
    name, marked = link.link.name, network_of(link.link.alias)
    if marked is not None:
        return is_inside(marked, networks)
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


def _device(wanted: Vxlan, desired: Desired, present: Present) -> Change | None:
    """Compare one device; _Foreign if its name is taken. Without its underlay it has to wait."""
    other = present.links.get(wanted.name)
    underlay = present.links.get(wanted.underlay)
    if other is None:
        return None if underlay is None else Change("add", wanted)
    link = present.vxlans.get(wanted.name)
    if link is None:
        raise _Foreign(
            f"{wanted.name} exists and is {other.kind or 'no virtual device'}, not a VXLAN device:"
            " delete or rename it, or choose another VNI"
        )
    marked = network_of(link.link.alias)
    if marked is not None and marked not in desired.networks:
        raise _Foreign(
            f"{wanted.name} has the alias {link.link.alias!r}: it belongs to another network;"
            " choose another VNI for this one"
        )
    if underlay is None:
        return None
    if not link.is_like(wanted, underlay.index):
        return Change("replace", wanted, tuple(_unlike(link, wanted, underlay.index, present)))
    what = tuple(_lacking(link, wanted, present))
    return Change("change", wanted, what) if what else None


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
    """Name what has to be set on a device that can be reused; ``devices`` sets it all."""
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


def _addresses(desired: Desired, present: Present) -> Iterator[Change]:
    for address in desired.addresses - present.addresses:
        yield Change("add", address)
    ours = {address.link for address in desired.addresses}
    for address in present.addresses - desired.addresses:
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

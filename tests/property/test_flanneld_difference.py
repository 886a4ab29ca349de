"""Of any two states: what the difference says leads from one to the other, and harms no other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_interface
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from flanneld.desired import Address, Desired, Forward, Neighbour, Route, Vxlan, alias
from flanneld.kernel.difference import difference
from flanneld.kernel.entries import RTPROT_FLANNEL, RTPROT_OF_GO, Hop, RouteEntry
from flanneld.kernel.present import Present, Settings
from flanneld.kernel.vxlan import VxlanLink
from netlink.link import IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_MTU, Link, mac_bytes
from tests.unit.flanneld import cluster

if TYPE_CHECKING:
    from flanneld.desired import AnyAddress
    from flanneld.kernel.difference import Change, Difference

NETWORK = IPv4Network("10.244.0.0/16")
OTHER = IPv4Network("10.99.0.0/16")
INDEXES = {"eth0": 2, "flannel.1": 3, "flannel.2": 4}
NAMES = {index: name for name, index in INDEXES.items()}
DEVICE = replace(cluster.DEVICE, port=8472)


@dataclass
class Kernel:
    """A model: what the kernel holds, and what each change does to it."""

    devices: dict[str, Vxlan] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    neighbours: dict[tuple[str, AnyAddress], Neighbour] = field(default_factory=dict)
    forwards: dict[tuple[str, str], Forward] = field(default_factory=dict)
    routes: list[RouteEntry] = field(default_factory=list)

    def present(self) -> Present:
        vxlans = {name: self._vxlan(name) for name in self.devices}
        links = {"eth0": _link("eth0", 2, is_up=True)}
        return Present(
            links={**links, **{name: found.link for name, found in vxlans.items()}},
            vxlans=vxlans,
            settings={
                name: Settings(accept_ra=False, tx_checksum_offload=device.tx_checksum_offload)
                for name, device in self.devices.items()
            },
            addresses=frozenset(self.addresses),
            neighbours=frozenset(self.neighbours.values()),
            forwards=frozenset(self.forwards.values()),
            routes=tuple(self.routes),
            names={2: "eth0", **{INDEXES[name]: name for name in self.devices}},
        )

    def _vxlan(self, name: str) -> VxlanLink:
        device = self.devices[name]
        return VxlanLink(
            link=_link(name, INDEXES[name], is_up=name not in self.down, device=device),
            vni=device.vni,
            port=device.port,
            underlay=2,
            local=device.local,
            gbp=device.gbp,
            learning=device.learning,
            external=False,
            ordinary=True,
        )

    def carry_out(self, change: Change) -> None:
        value = change.value
        gone = change.action == "remove"
        if isinstance(value, VxlanLink):
            self._delete(value.link.name)
        elif isinstance(value, Vxlan):
            if change.action == "replace":
                self._delete(value.name)
            self.devices[value.name] = value
            self.down.discard(value.name)
        elif isinstance(value, Address):
            (self.addresses.discard if gone else self.addresses.add)(value)
        elif isinstance(value, Route):
            self._exchange(change, value)
        else:
            self._entry(value, gone=gone)

    def _entry(self, value: Neighbour | Forward, *, gone: bool) -> None:
        if isinstance(value, Neighbour):
            self.neighbours.pop((value.link, value.address), None)
            if not gone:
                self.neighbours[value.link, value.address] = value
        else:
            self.forwards.pop((value.link, value.mac), None)
            if not gone:
                self.forwards[value.link, value.mac] = value

    def _exchange(self, change: Change, route: Route) -> None:
        for entry in change.held:
            self.routes.remove(entry)
        if change.action != "remove":
            self.routes.append(_entry_of(route, RTPROT_FLANNEL, len(self.routes)))

    def _delete(self, name: str) -> None:
        del self.devices[name]
        self.addresses = {one for one in self.addresses if one.link != name}
        for table in (self.neighbours, self.forwards):
            for key in [key for key in table if key[0] == name]:
                del table[key]  # type: ignore[arg-type]
        self.routes = [one for one in self.routes if one.hop.ifindex != INDEXES[name]]


def _link(name: str, index: int, *, is_up: bool, device: Vxlan | None = None) -> Link:
    attrs = {IFLA_IFNAME: name.encode()}
    if device is not None:
        attrs[IFLA_ADDRESS] = mac_bytes(device.mac)
        attrs[IFLA_IFALIAS] = device.alias.encode()
        attrs[IFLA_MTU] = device.mtu.to_bytes(4, "little")
    return Link(index, int(is_up), attrs)


def _entry_of(route: Route, protocol: int, number: int, *, metric: int = 0) -> RouteEntry:
    index = 0 if route.blackhole else INDEXES[route.link]
    hop = Hop(index, route.gateway, route.onlink, route.scope_link, route.blackhole)
    return RouteEntry(
        route.destination, metric, protocol, hop, odd=False, body=number.to_bytes(4, "big")
    )


# ---------------------------------------------------------------------------------- any two states

PEERS = st.integers(2, 5)
SUBNETS = PEERS.map(lambda n: IPv4Network(f"10.244.{n}.0/24"))
MACS = PEERS.map(lambda n: f"02:00:00:04:00:{n:02x}")
REMOTES = PEERS.map(lambda n: IPv4Address(f"192.168.9.{n}"))
BASES = SUBNETS.map(lambda subnet: subnet.network_address)
LINKS = st.sampled_from(["flannel.1", "flannel.2"])
ONLINK = SUBNETS.map(lambda net: Route("flannel.1", net, net.network_address, onlink=True))
DIRECT = st.builds(Route, st.just("eth0"), SUBNETS, REMOTES)
HOLE = SUBNETS.map(lambda net: Route("", net, None, blackhole=True))
ROUTES = ONLINK | DIRECT | HOLE

DESIRED = st.builds(
    lambda with_device, neighbours, forwards, routes: Desired(
        devices=frozenset({DEVICE} if with_device else ()),
        addresses=frozenset(
            {Address("flannel.1", ip_interface("10.244.1.0/32"))} if with_device else ()
        ),
        neighbours=frozenset(neighbours if with_device else ()),
        forwards=frozenset(forwards if with_device else ()),
        routes=frozenset(one for one in routes if with_device or one.link != "flannel.1"),
        networks=frozenset({NETWORK}),
    ),
    st.booleans(),
    st.lists(
        st.builds(Neighbour, st.just("flannel.1"), BASES, MACS), unique_by=lambda one: one.address
    ),
    st.lists(
        st.builds(Forward, st.just("flannel.1"), MACS, REMOTES), unique_by=lambda one: one.mac
    ),
    st.lists(ROUTES, unique_by=lambda one: one.destination),
)

DEVICES = st.dictionaries(
    LINKS,
    st.builds(
        replace,
        st.just(DEVICE),
        vni=st.sampled_from([1, 2]),
        mtu=st.sampled_from([1450, 1300]),
        mac=st.sampled_from([DEVICE.mac, "02:00:00:00:00:99"]),
        gbp=st.booleans(),
        alias=st.sampled_from([alias(NETWORK), "", alias(OTHER)]),
    ),
)
FOREIGN = st.builds(
    Route, st.just("eth0"), st.just(IPv4Network("172.31.0.0/24")) | SUBNETS, REMOTES
)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    devices = {name: replace(one, name=name) for name, one in draw(DEVICES).items()}
    if devices.get("flannel.1", DEVICE).alias == alias(
        OTHER
    ):  # that is a problem, not a difference
        del devices["flannel.1"]
    names = st.sampled_from([*devices, "eth0"])
    on = st.sampled_from(sorted(devices)) if devices else st.nothing()
    hosts = SUBNETS.map(lambda net: ip_interface((net.network_address, 32)))
    neighbours = draw(st.lists(st.builds(Neighbour, on, BASES, MACS))) if devices else []
    forwards = draw(st.lists(st.builds(Forward, on, MACS, REMOTES))) if devices else []
    routes = draw(
        st.lists(
            st.tuples(
                st.builds(Route, names, SUBNETS, REMOTES | BASES, st.booleans()) | HOLE | FOREIGN,
                st.sampled_from([RTPROT_FLANNEL, RTPROT_OF_GO]),
                st.sampled_from([0, 0, 50]),
            )
        )
    )
    return Kernel(
        devices=devices,
        down=draw(st.sets(on)) if devices else set(),
        addresses=draw(st.sets(st.builds(Address, on, hosts))) if devices else set(),
        neighbours={(one.link, one.address): one for one in neighbours},
        forwards={(one.link, one.mac): one for one in forwards},
        routes=[
            _entry_of(route, protocol, number, metric=metric)
            for number, (route, protocol, metric) in enumerate(routes)
        ],
    )


def settle(desired: Desired, kernel: Kernel) -> Difference:
    """Carry out as the reconciler does: devices first, then entries, compared anew."""
    for change in difference(desired, kernel.present()).devices:
        kernel.carry_out(change)
    for change in difference(desired, kernel.present()).entries:
        kernel.carry_out(change)
    return difference(desired, kernel.present())


@given(DESIRED, kernels())
def test_one_pass_leads_there(desired: Desired, kernel: Kernel) -> None:
    left = settle(desired, kernel)
    assert not left.problems
    assert not left.devices
    assert not left.entries


@given(DESIRED)
def test_from_nothing_there_is_exactly_what_is_desired(desired: Desired) -> None:
    kernel = Kernel()
    settle(desired, kernel)
    assert frozenset(kernel.devices.values()) == desired.devices
    assert frozenset(kernel.addresses) == desired.addresses
    assert frozenset(kernel.neighbours.values()) == desired.neighbours
    assert frozenset(kernel.forwards.values()) == desired.forwards
    present = kernel.present()
    assert frozenset(present.route(entry) for entry in kernel.routes) == desired.routes


@given(DESIRED, kernels())
def test_what_is_not_ours_stays(desired: Desired, kernel: Kernel) -> None:
    wanted = {route.destination for route in desired.routes}
    foreign_devices = {
        name
        for name, device in kernel.devices.items()
        if name not in {one.name for one in desired.devices} and device.alias == alias(OTHER)
    }
    on_foreign = [one for one in kernel.neighbours.values() if one.link in foreign_devices]
    foreign_routes = [
        entry
        for entry in kernel.routes
        if NAMES.get(entry.hop.ifindex) in {"eth0", *foreign_devices, None}
        and (
            (entry.protocol == RTPROT_FLANNEL and not entry.destination.subnet_of(NETWORK))  # type: ignore[arg-type]
            or (
                entry.protocol == RTPROT_OF_GO
                and (entry.destination not in wanted or entry.metric)
                and not (entry.hop.onlink and NAMES.get(entry.hop.ifindex) == "flannel.1")
            )
        )
    ]
    settle(desired, kernel)
    assert foreign_devices <= kernel.devices.keys()
    assert all(one in kernel.neighbours.values() for one in on_foreign)
    assert all(entry in kernel.routes for entry in foreign_routes)


@given(DESIRED, kernels())
def test_the_same_is_said_twice(desired: Desired, kernel: Kernel) -> None:
    first, second = (difference(desired, kernel.present()) for _ in range(2))
    assert list(map(str, first.entries)) == list(map(str, second.entries))
    assert list(map(str, first.devices)) == list(map(str, second.devices))

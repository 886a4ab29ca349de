"""Confs as users might write them, drawn by hypothesis; some ask for the impossible.

`bridge_confs` are of the bridge plugin: subnets of every size and both families, gateways inside,
outside and where none can be, routes of every kind. `flannel_chains` are flannel's, with delegates
of containernetworking, and the daemon's file that goes with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from tests.kernel.attachments import DUAL_STACK, ONLY_V6

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")  # those that have CHECK

SUBNETS = {
    4: ["10.88.1.0/26", "10.88.1.64/26", "10.88.2.0/30", "10.88.3.4/31", "10.88.3.9/32"],
    6: ["fd00:88::/64", "fd00:88:1::/120", "fd00:88:2::4/127", "fd00:88:3::9/128", "fe80:1::/64"],
}
GATEWAYS = {
    4: ["10.88.1.1", "10.88.1.70", "10.88.2.2", "10.244.1.1", "169.254.1.1", "10.99.0.1"],
    6: ["fd00:88::1", "fd00:88:1::7", "fd00:f1:0:1::1", "fe80::1", "fd00:99::1", "2001:db8::1"],
}
IMPOSSIBLE = {
    4: [
        *(
            "10.88.3.9",
            "10.88.1.63",
            "10.88.1.64",
            "0" + ".0" * 3,
            "0.0.0.1",
            "127.0.0.1",
            "224.0.0.1",
        ),
        *("240.0.0.1", "255.255.255.255", "", "10.88.1", "fd00:88::1"),
    ],
    6: [
        *("fd00:88:3::9", "fd00:88::", "fe80::", "::", "::1", "::2", "ff02::1", "fe80::1%eth0"),
        *("::ffff:10.0.0.1", "10.88.1.1"),
    ],
}
DESTINATIONS = {
    4: [
        *("0.0.0.0/0", "10.244.0.0/16", "10.244.7.9/16", "10.88.1.0/24", "10.88.0.0/16"),
        *("192.0.2.1/32", "169.254.1.1/32", "0.0.0.0/1", "127.0.0.0/8", "224.0.0.0/4"),
        *("10.88.1.255/32", "255.255.255.255/32", "240.0.0.0/4", "0.0.0.0/32"),
    ],
    6: [
        *("::/0", "fd00:f1::/56", "fd00:f1::9/56", "fd00:88::/64", "fd00:88::/48"),
        *("2001:db8::1/128", "fe80::/64", "fe80::1/128", "::/1", "ff00::/8", "::1/128"),
        *("::ffff:0:0/96", "ff02::1/128", "::/128"),
    ],
}
_METRICS = {
    "mtu": [0, 1280, 1400, 9000, 65535, 4294967295],
    "advmss": [0, 500, 1360, 65535],
    "priority": [0, 1, 100, 1024, 4294967295],
    "table": [0, 1, 100, 253, 254, 255, 256, 4294967295],
    "scope": [0, 200, 253, 254, 255],
}


def _mostly(usual: Any, *others: Any) -> SearchStrategy[Any]:
    return st.sampled_from([usual] * 4 + list(others))


def _some(**keys: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """An object that has some of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


def gateways(family: int) -> SearchStrategy[str]:
    """Gateways of a family; one in eight is none."""
    return st.integers(0, 7).flatmap(
        lambda n: st.sampled_from(GATEWAYS[family] if n else IMPOSSIBLE[family])
    )


@st.composite
def _ranges(draw: st.DrawFn, families: tuple[int, ...]) -> list[list[dict[str, Any]]]:
    """Range sets of these families, with subnets of their own."""
    left = {family: draw(st.permutations(SUBNETS[family])) for family in set(families)}
    found = []
    for family in families:
        items = [{"subnet": left[family].pop()} for _ in range(draw(_mostly(1, 2)))]
        if draw(st.booleans()):
            items[0]["gateway"] = draw(gateways(family))
        found.append(items)
    return found


@st.composite
def routes(draw: st.DrawFn) -> dict[str, Any]:
    """A route of the conf: destination, perhaps a gateway (of the other family, too), metrics."""
    family = draw(st.sampled_from([4, 6]))
    route = {"dst": draw(st.sampled_from(DESTINATIONS[family]))}
    if draw(st.booleans()):
        route["gw"] = draw(gateways(draw(_mostly(family, 10 - family))))
    if draw(_mostly(False, True)):
        metrics = {key: st.sampled_from(values) for key, values in _METRICS.items()}
        route |= draw(_some(**metrics))
    return route


@st.composite
def ipams(draw: st.DrawFn) -> dict[str, Any]:
    """A section of host-local with one set or two, of one family or both."""
    families = draw(st.sampled_from([(4,), (6,), (4, 6), (6, 4), (4, 4), (6, 6)]))
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": draw(_ranges(families)),
    }
    if draw(st.booleans()):
        ipam["routes"] = draw(st.lists(routes(), max_size=4))
    return ipam


_SWITCHES = (
    *("isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "portIsolation"),
    *("preserveDefaultVlan", "keepAcceptRA"),
)
# slow, or seldom used: they come less often
_RARE = ("promiscMode", "ipMasq", "macspoofchk", "enabledad", "disableContainerInterface")
_TRUNKS: tuple[list[dict[str, int]], ...] = (
    *([], [{"id": 7}], [{"minID": 10, "maxID": 20}]),
    [{"id": 7}, {"id": 7}, {"id": 4094}],
)


@st.composite
def bridge_confs(draw: st.DrawFn, name: str = "net") -> dict[str, Any]:
    """A conf of the bridge plugin for a network, whose bridge has its name."""
    conf: dict[str, Any] = {
        "cniVersion": draw(st.sampled_from(VERSIONS)),
        "name": name,
        "type": "bridge",
        "bridge": name,
    }
    for key in _SWITCHES:
        if draw(st.booleans()):
            conf[key] = draw(st.booleans())
    for key in _RARE:
        if draw(_mostly(False, True)) and draw(st.booleans()):
            conf[key] = True
    conf |= draw(
        _some(
            mtu=_mostly(1450, 0, 68, 1279, 1280, 9000, 65535),
            dns=st.just({"nameservers": ["10.88.0.10"]}),
        )
    )
    if draw(st.integers(0, 11)) == 7:
        vlans = {"vlan": st.sampled_from([0, 1, 100]), "vlanTrunk": st.sampled_from(_TRUNKS)}
        conf |= draw(_some(**vlans))
    if draw(_mostly(True, False)):
        conf["ipam"] = draw(ipams())
    return conf


class Chain(NamedTuple):
    """A conf of flannel, and what subnet.env says."""

    conf: dict[str, Any]
    env: dict[str, Any]


_DELEGATES: list[dict[str, Any]] = [
    {},
    {"isDefaultGateway": True, "hairpinMode": True},
    {"type": "ptp"},
    {"type": "ptp", "ipMasq": True},
    {"type": "macvlan", "master": "uplink"},
    {"type": "macvlan", "master": "uplink", "mode": "private"},
    {"type": "ipvlan", "master": "uplink"},
    {"type": "ipvlan", "master": "uplink", "mode": "l3"},
    {"type": "host-device", "device": "uplink"},
    {"type": "vlan", "master": "uplink", "vlanId": 7},
]
_ENVS: list[dict[str, Any]] = [
    {},
    {"network": "10.244.0.0/16,10.250.0.0/16"},
    DUAL_STACK,
    ONLY_V6,
    {"subnet": "10.244.1.9/29"},
    {"ipmasq": "false"},
    {"mtu": "1279"},
]


@st.composite
def flannel_chains(draw: st.DrawFn) -> Chain:
    """A conf of flannel with any delegate that is there."""
    conf: dict[str, Any] = {
        "cniVersion": draw(st.sampled_from(VERSIONS[:2])),  # Debian's plugins know these
        "name": "cbr0",
        "type": "flannel",
        "delegate": draw(st.sampled_from(_DELEGATES)),
    }
    if draw(st.booleans()):
        conf["ipam"] = {"routes": draw(st.lists(routes(), max_size=3))}
    return Chain(conf, draw(st.sampled_from(_ENVS)))

"""The plan of an ADD as the commands it is equivalent to: golden lists, nothing is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.attachment import BRIDGE_ALIAS
from cni.cidr import parse_prefix
from cni.errors import BRIDGE_IN_THE_WAY, INVALID_NETWORK_CONFIG, CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import plan_node
from cni_flannel.bridge.links import gateway_port_name
from cni_flannel.bridge.node import Node, in_the_way
from tests.unit.fakes import args, link
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from cni.cidr import Prefix
    from cni_flannel.bridge.conf import BridgeConf
    from cni_flannel.bridge.steps import Step

MAC = "02:00:00:00:00:99"
CNI0 = "02:00:00:00:00:07"
GW4, GW6 = parse_prefix("10.244.1.1/24"), parse_prefix("fd00::1/64")
PHYSICAL = ("eth0", "")


def parse(**conf: Any) -> BridgeConf:
    return bridge_conf.parse(args({"name": "net", **conf}))


def lines(steps: list[Step]) -> list[str]:
    return [line for step in steps for line in step.describe()]


def seen(
    addresses: str = "",
    ports: tuple[str, ...] = (),
    *,
    off: tuple[int, ...] = (),
    uplinks: tuple[str, ...] = (),
    ours: bool = True,
    hears_ra: bool = False,
    ipv6_off: bool = False,
    **bridge: Any,
) -> Node:
    node = Node(lambda: ours)
    given = {"kind": "bridge", "mtu": 1450, "alias": BRIDGE_ALIAS if ours else "", **bridge}
    node.bridge = node.holder = link("cni0", 7, **given)
    node.hears_ra, node.ipv6_off = hears_ra, ipv6_off
    node.addresses = [parse_prefix(text) for text in addresses.split()]
    node.ports = list(ports)
    node.forwarding = {4: 4 not in off, 6: 6 not in off}
    node.ra_uplinks = list(uplinks)
    return node


def nothing(*families: int, uplinks: tuple[str, ...] = ()) -> Node:
    node = Node()
    node.forwarding = dict.fromkeys(families, False)
    node.ra_uplinks = list(uplinks)
    return node


# ----------------------------------------------------------------------------------------- the node

PREPARE: list[tuple[str, dict[str, Any], Node, list[Prefix], list[str]]] = [
    (
        "first pod",
        {"mtu": 1450},
        nothing(4),
        [GW4],
        [
            f"ip link add cni0 up address {MAC} type bridge",
            "ip link set cni0 alias flannel:bridge",
            "ip link set cni0 mtu 1450",
            "sysctl -w net/ipv6/conf/cni0/accept_ra=0",
            "ip address replace 10.244.1.1/24 dev cni0",
            "sysctl -w net/ipv4/ip_forward=1",
        ],
    ),
    (
        "first pod, both families, uplink that lives from router advertisements",
        {"promiscMode": True},
        nothing(4, 6, uplinks=("eth0",)),
        [GW4, GW6],
        [
            f"ip link add cni0 up address {MAC} type bridge",
            "ip link set cni0 alias flannel:bridge",
            "ip link set cni0 promisc on",
            "sysctl -w net/ipv6/conf/cni0/accept_ra=0",
            "sysctl -w net/ipv6/conf/cni0/accept_dad=0",
            "ip address replace 10.244.1.1/24 dev cni0",
            "ip address replace fd00::1/64 dev cni0",
            "sysctl -w net/ipv4/ip_forward=1",
            "sysctl -w net/ipv6/conf/eth0/accept_ra=2",
            "sysctl -w net/ipv6/conf/all/forwarding=1",
        ],
    ),
    ("all is there", {"mtu": 1450}, seen("10.244.1.1/24"), [GW4], []),
    ("no gateway, no address", {}, seen(), [], []),
    ("the kernel's MTU is not repaired", {}, seen(mtu=9000), [], []),
    (
        "down, wrong MTU, not promiscuous",
        {"mtu": 1400, "promiscMode": True},
        seen("10.244.1.1/24", flags=0),
        [GW4],
        ["ip link set cni0 up mtu 1400 promisc on"],
    ),
    ("promiscuous already", {"promiscMode": True}, seen(flags=0x101), [], []),
    (
        "address lost",
        {},
        seen(),
        [GW4],
        [
            "ip address replace 10.244.1.1/24 dev cni0",
        ],
    ),
    (
        "another subnet, no port left",
        {},
        seen("10.99.0.1/24 fd00::1/64"),
        [GW4, GW6],
        [
            "ip address del 10.99.0.1/24 dev cni0",
            "ip address replace 10.244.1.1/24 dev cni0",
        ],
    ),
    (
        "another subnet, and no port but the VLAN gateway's own",
        {"vlan": 100},
        seen("10.99.0.1/24", (gateway_port_name("cni0.100"),), vlan_filtering=True),
        [GW4],
        [
            "ip address del 10.99.0.1/24 dev cni0.100",
            "ip address replace 10.244.1.1/24 dev cni0.100",
        ],
    ),
    (
        "another subnet, ports, but forced",
        {"forceAddress": True},
        seen("10.99.0.1/24", ("vethx",)),
        [GW4],
        [
            "ip address del 10.99.0.1/24 dev cni0",
            "ip address replace 10.244.1.1/24 dev cni0",
        ],
    ),
    (
        "the other gateway is not in the way",
        {},
        seen("10.99.0.1/24", ("vethx",)),
        [parse_prefix("10.99.0.1/24"), GW4],
        [
            "ip address replace 10.244.1.1/24 dev cni0",
        ],
    ),
    (
        "addresses of IPv6 that do not overlap stay",
        {},
        seen("fe80::1/64 fd99::1/64", ("vethx",)),
        [GW6],
        [
            "ip address replace fd00::1/64 dev cni0",
        ],
    ),
    (
        "forwarding switched off by somebody",
        {},
        seen("10.244.1.1/24", off=(4,)),
        [GW4],
        ["sysctl -w net/ipv4/ip_forward=1"],
    ),
    (
        "made by the Go plugin, or by an earlier version",
        {"isGateway": True},
        seen("10.244.1.1/24", alias="", hears_ra=True),
        [GW4],
        [
            f"ip link set cni0 alias flannel:bridge address {CNI0}",
            "sysctl -w net/ipv6/conf/cni0/accept_ra=0",
        ],
    ),
    (
        "the host's keeps its MTU and its router advertisements",
        {"isGateway": True, "mtu": 9000},
        seen("192.168.7.9/24 10.244.1.1/24", ours=False, hears_ra=True),
        [GW4],
        [],
    ),
    (
        "the host's at layer 2",
        {"mtu": 9000},
        seen(ours=False, hears_ra=True),
        [],
        [],
    ),
    (
        "the host's gets the gateway that the conf asks for, and keeps its MAC as it came by it",
        {"isGateway": True},
        seen("fd99::1/64", ours=False),
        [GW4],
        ["ip address replace 10.244.1.1/24 dev cni0"],
    ),
    ("the host's, down", {"mtu": 1400}, seen(ours=False, flags=0), [], ["ip link set cni0 up"]),
    (
        "the host's, an address in the way, but forced",
        {"isGateway": True, "forceAddress": True},
        seen("10.99.0.1/24", ours=False),
        [GW4],
        ["ip address del 10.99.0.1/24 dev cni0", "ip address replace 10.244.1.1/24 dev cni0"],
    ),
    (
        "IPv6 switched off on the bridge",
        {},
        seen(ipv6_off=True),
        [GW6],
        [
            "sysctl -w net/ipv6/conf/cni0/disable_ipv6=0",
            "ip address replace fd00::1/64 dev cni0",
        ],
    ),
    (
        "a link-local gateway beside the link's own",
        {},
        seen("fe80::7/64", ("vethx",)),
        [parse_prefix("fe80::1/64")],
        ["ip address replace fe80::1/64 dev cni0"],
    ),
]


@pytest.mark.parametrize(("conf", "node", "gateways", "expected"), named(PREPARE))
def test_the_bridge_is_made_or_repaired(
    conf: dict[str, Any], node: Node, gateways: list[Prefix], expected: list[str]
) -> None:
    assert lines(plan_node.prepare(parse(**conf), node, gateways, MAC)) == expected


def test_with_a_vlan_the_gateway_is_on_a_link_of_its_own() -> None:
    conf = parse(vlan=100, isGateway=True, mtu=1450)
    port = gateway_port_name("cni0.100")
    assert lines(plan_node.prepare(conf, nothing(), [GW4], MAC)) == [
        f"ip link add cni0 up address {MAC} type bridge vlan_filtering 1",
        "ip link set cni0 alias flannel:bridge",
        "ip link set cni0 mtu 1450",
        "sysctl -w net/ipv6/conf/cni0/accept_ra=0",
        f"ip link add {port} up mtu 1450 master cni0 type veth peer name cni0.100",
        "ip link set cni0.100 up",
        f"ip link set {port} alias flannel:bridge",
        f"bridge vlan del dev {port} vid 1",
        f"bridge vlan add dev {port} vid 100 pvid untagged",
        "ip address replace 10.244.1.1/24 dev cni0.100",
    ]


WAYS: list[tuple[str, str, Prefix, list[str]]] = [
    ("nothing", "", GW4, []),
    ("itself", "10.244.1.1/24 10.9.0.1/24", GW4, []),
    ("any other of IPv4", "10.9.0.1/24", GW4, ["10.9.0.1/24"]),
    ("the same with another length", "10.244.1.1/16", GW4, ["10.244.1.1/16"]),
    ("the other family", "fd00::1/64", GW4, []),
    ("overlapping of IPv6", "fd00::9/48 fd99::1/64", GW6, ["fd00::9/48"]),
]


@pytest.mark.parametrize(("addresses", "gateway", "expected"), named(WAYS))
def test_what_is_in_the_way(addresses: str, gateway: Prefix, expected: list[str]) -> None:
    found = in_the_way([parse_prefix(text) for text in addresses.split()], gateway)
    assert [str(address) for address in found] == expected


IN_THE_WAY: list[tuple[str, dict[str, Any], Node, list[str]]] = [
    (
        "ports use another subnet",
        {},
        seen("10.99.0.1/24", ("vetha", "vethb")),
        [
            '"cni0" already has an IP address different from 10.244.1.1/24',
            "it has 10.99.0.1/24, and 2 ports use it (vetha, vethb)",
        ],
    ),
    (
        "many ports",
        {},
        seen("10.99.0.1/24", tuple(f"veth{n}" for n in range(9))),
        ["9 ports use it (veth0, veth1, veth2, veth3, ...)"],
    ),
    (
        "a physical interface",
        {},
        seen(kind=""),
        ['"cni0" already exists but is not a bridge: it is a physical interface'],
    ),
    ("a dummy", {}, seen(kind="dummy"), ['already exists but is not a bridge: it is a "dummy"']),
    ("no VLANs", {"vlan": 5}, seen(vlan_filtering=False), ["for VLANs: it does not filter them"]),
    (
        "the host's address, no port",
        {},
        seen("10.99.0.1/24", ours=False),
        ["different from 10.244.1.1/24: it has 10.99.0.1/24, and the bridge is the host's"],
    ),
    (
        "the host's is not promiscuous",
        {"promiscMode": True},
        seen("10.244.1.1/24", ours=False),
        ['could not set promiscuous mode of "cni0": that bridge is the host\'s'],
    ),
]


@pytest.mark.parametrize(("conf", "node", "messages"), named(IN_THE_WAY))
def test_something_else_in_the_bridges_place(
    conf: dict[str, Any], node: Node, messages: list[str]
) -> None:
    with pytest.raises(CNIError) as caught:
        plan_node.prepare(parse(**conf), node, [GW4], MAC)
    assert caught.value.code == BRIDGE_IN_THE_WAY
    for message in messages:
        assert message in caught.value.msg
    assert caught.value.details


def test_the_remedy_names_both_subnets() -> None:
    with pytest.raises(CNIError) as caught:
        plan_node.prepare(parse(), seen("10.99.0.1/24", ("veth0",)), [GW4], MAC)
    assert "from 10.99.0.0/24 to 10.244.1.0/24" in caught.value.details


def test_a_host_s_bridge_without_ipv6_is_left_without() -> None:
    with pytest.raises(CNIError, match="net/ipv6/conf/cni0/disable_ipv6 is 1, and the bridge"):
        plan_node.prepare(parse(), seen(ours=False, ipv6_off=True), [GW6], MAC)


def test_a_kernel_without_ipv6_is_named() -> None:
    node = seen("fd00::1/64")
    node.forwarding[6] = None
    with pytest.raises(CNIError, match="no /proc/sys/net/ipv6/conf/all/forwarding") as caught:
        plan_node.prepare(parse(), node, [GW6], MAC)
    assert "ipv6.disable=1" in caught.value.details


SMALL: list[tuple[str, dict[str, Any], Node, list[int], str]] = [
    ("the pod", {"mtu": 1279}, nothing(), [4, 6], "invalid MTU 1279: IPv6 needs at least 1280"),
    ("the pod, of the bridge", {}, seen(mtu=1000), [6], "invalid MTU 1000: IPv6 needs"),
    ("the bridge", {"mtu": 1000}, seen("fd99::1/64"), [4], '"cni0" has fd99::1/64'),
    ("enough", {"mtu": 1280}, seen("fd99::1/64"), [4, 6], ""),
    ("no IPv6", {"mtu": 68}, seen("10.244.1.1/24 fe80::7/64"), [4], ""),
]


@pytest.mark.parametrize(("conf", "node", "families", "words"), named(SMALL))
def test_an_mtu_that_takes_ipv6_away(
    conf: dict[str, Any], node: Node, families: list[int], words: str
) -> None:
    if not words:
        plan_node.require_mtu(parse(**conf), node, families)
        return
    with pytest.raises(CNIError) as caught:
        plan_node.require_mtu(parse(**conf), node, families)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert words in caught.value.msg
    assert "FLANNEL_MTU" in caught.value.details

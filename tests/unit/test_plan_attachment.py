"""The plan of one attachment as the commands it is equivalent to, and the result it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.attachment import Attachment
from cni_flannel.bridge import layer3 as l3
from cni_flannel.bridge import plan
from tests.unit.fakes import args, link
from tests.unit.test_layer3 import V4, V6
from tests.unit.test_netconf import named
from tests.unit.test_plan import CNI0, MAC, lines, parse

if TYPE_CHECKING:
    from cni_flannel.bridge.layer3 import Layer3


HOST_MAC, POD_MAC = "02:00:00:00:00:0a", "0a:58:0a:f4:01:02"
IDENTITY = Attachment("net", "c1", "eth0")


def attach(ipam_result: dict[str, Any] | None, **conf: Any) -> list[str]:
    parsed = parse(**conf)
    bridge = link("cni0", 7, "bridge", vlan_filtering=True)
    layer3 = l3.complete(parsed, ipam_result)
    veth = plan.pair(parsed, IDENTITY, bridge, "vethx", (HOST_MAC, POD_MAC))
    return lines([*plan.link(parsed, veth), *plan.complete(parsed, veth, layer3)])


def veth(mtu: int = 1500) -> list[str]:
    peer = f"peer name eth0 address {POD_MAC} mtu {mtu} netns POD"
    return [
        f"ip link add vethx address {HOST_MAC} mtu {mtu} type veth {peer}",
        "ip link set vethx alias 'flannel:net:c1:eth0 (adding)' master cni0 up",
    ]


FLAGS = "ip link set vethx type bridge_slave"
UP = "ip -n POD link set eth0 up"
PORT = "ip monitor link dev vethx  # until it forwards"
DONE = "ip link set vethx alias 'flannel:net:c1:eth0'"
POD_SYSCTL = "ip netns exec POD sysctl -w net"
ARP = f"{POD_SYSCTL}/ipv4/conf/eth0/arp_notify=1"
SIX = f"{POD_SYSCTL}/ipv6/conf/eth0"
SIX_ON = [
    f"{POD_SYSCTL}/ipv6/conf/lo/disable_ipv6=0",
    f"{SIX}/disable_ipv6=0",
    f"{SIX}/keep_addr_on_down=1",
]

ATTACH: list[tuple[str, dict[str, Any], dict[str, Any] | None, list[str]]] = [
    ("layer 2 only", {}, None, [*veth(), UP, PORT, DONE]),
    ("no interface configuration", {"disableContainerInterface": True}, None, [*veth(), DONE]),
    (
        "flannel's usual pod",
        {"mtu": 1450, "isDefaultGateway": True, "hairpinMode": True},
        {"ips": [V4], "routes": [{"dst": "10.244.0.0/16"}]},
        [
            *veth(1450),
            f"{FLAGS} hairpin on isolated off",
            ARP,
            "ip -n POD address add 10.244.1.2/24 dev eth0",
            UP,
            "ip -n POD route append 10.244.0.0/16 via 10.244.1.1 dev eth0",
            "ip -n POD route append 0.0.0.0/0 via 10.244.1.1 dev eth0",
            PORT,
            "ip neighbour replace 10.244.1.2 dev cni0 nud none",
            DONE,
        ],
    ),
    (
        "IPv6 without waiting",
        {"isGateway": True, "portIsolation": True},
        {"ips": [V6]},
        [
            *veth(),
            f"{FLAGS} hairpin off isolated on",
            f"{SIX}/accept_dad=0",
            f"{SIX}/accept_ra=0",
            *SIX_ON,
            "ip -n POD address add fd00::2/64 dev eth0 nodad",
            UP,
            PORT,
            "ip neighbour replace fd00::2 dev cni0 nud none",
            DONE,
        ],
    ),
    (
        "both families, duplicate address detection and router advertisements wanted",
        {"enabledad": True, "keepAcceptRA": True},
        {"ips": [V4, V6]},
        [
            *veth(),
            ARP,
            f"{SIX}/enhanced_dad=1",
            f"{SIX}/accept_dad=1",
            *SIX_ON,
            "ip -n POD address add 10.244.1.2/24 dev eth0",
            "ip -n POD address add fd00::2/64 dev eth0",
            UP,
            "ip -n POD monitor address dev eth0  # until none is tentative",
            PORT,
            DONE,
        ],
    ),
    (
        "a VLAN and a trunk",
        {"vlan": 100, "vlanTrunk": [{"minID": 5, "maxID": 7}], "isGateway": True},
        {"ips": [V4]},
        [
            *veth(),
            "bridge vlan del dev vethx vid 1",
            "bridge vlan add dev vethx vid 100 pvid untagged",
            "bridge vlan add dev vethx vid 5-7",
            ARP,
            "ip -n POD address add 10.244.1.2/24 dev eth0",
            UP,
            PORT,
            DONE,
        ],
    ),
    (
        "the default VLAN kept",
        {"vlan": 100, "preserveDefaultVlan": True},
        None,
        [*veth(), "bridge vlan add dev vethx vid 100 pvid untagged", UP, PORT, DONE],
    ),
    (
        "a trunk alone",
        {"vlanTrunk": [{"id": 5}]},
        None,
        [
            *veth(),
            "bridge vlan add dev vethx vid 1 pvid untagged",
            "bridge vlan add dev vethx vid 5-5",
            UP,
            PORT,
            DONE,
        ],
    ),
    (
        "numbers of a route",
        {},
        {"ips": [V4], "routes": [{"dst": "10.0.0.0/8", "mtu": 1400, "table": 100}]},
        [
            *veth(),
            ARP,
            "ip -n POD address add 10.244.1.2/24 dev eth0",
            UP,
            "ip -n POD route append 10.0.0.0/8 via 10.244.1.1 mtu 1400 table 100 dev eth0",
            PORT,
            DONE,
        ],
    ),
]


@pytest.mark.parametrize(("conf", "ipam_result", "expected"), named(ATTACH))
def test_an_attachment(
    conf: dict[str, Any], ipam_result: dict[str, Any] | None, expected: list[str]
) -> None:
    assert attach(ipam_result, **conf) == expected


PODS: list[tuple[str, dict[str, Any] | None, str]] = [
    ("of the address", {"ips": [V4]}, "0a:58:0a:f4:01:02"),
    ("of the first address", {"ips": [V4, V6]}, "0a:58:0a:f4:01:02"),
    ("of the whole IPv6 address", {"ips": [V6]}, "0a:3a:34:96:64:6c"),
    ("of a small one", {"ips": [{"address": "::b0c:d0e/64"}]}, "02:00:0b:0c:0d:0e"),
    ("random without one", None, MAC),
]


@pytest.mark.parametrize(("ipam_result", "mac"), named(PODS))
def test_the_pods_mac(ipam_result: dict[str, Any] | None, mac: str) -> None:
    assert plan.pod_mac(l3.complete(parse(), ipam_result), MAC) == mac


def test_the_result_has_go_s_order_of_interfaces() -> None:
    conf = parse(mtu=1450, dns={"domain": "d"}, cniVersion="1.1.0")
    layer3: Layer3 = l3.complete(conf, {"ips": [V4, V6], "routes": [{"dst": "10.0.0.0/8"}]})
    given = args({}, ifname="net1", netns="/proc/5/ns/net")
    bridge = link("cni0", 7, "bridge", mtu=1440)
    pair = plan.pair(conf, IDENTITY, bridge, "vethx", (HOST_MAC, POD_MAC))
    assert plan.result(conf, layer3, plan.interfaces(conf, given, pair)) == {
        "interfaces": [
            {"name": "cni0", "mac": CNI0, "mtu": 1440},
            {"name": "vethx", "mac": HOST_MAC, "mtu": 1450},
            {"name": "net1", "mac": POD_MAC, "mtu": 1450, "sandbox": "/proc/5/ns/net"},
        ],
        "ips": [{**V4, "interface": 2}, {**V6, "interface": 2}],
        "routes": [{"dst": "10.0.0.0/8"}],
        "dns": {"domain": "d"},
    }


@pytest.mark.parametrize(("conf", "mtu"), [({}, 9000), ({"mtu": 1400}, 1400)])
def test_without_an_mtu_of_its_own_a_pod_has_the_bridge_s(conf: dict[str, Any], mtu: int) -> None:
    bridge = link("cni0", 7, "bridge", mtu=9000)
    assert plan.pair(parse(**conf), IDENTITY, bridge, "vethx", (HOST_MAC, POD_MAC)).mtu == mtu

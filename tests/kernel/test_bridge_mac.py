"""One MAC, one pod: what follows from addresses differs, and what was asked for is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kernel.attaching import MARKS, add, attach, delete, host_local, make_conf, traces

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

A, B = "fd00:88:a::/64", "fd00:88:b::/64"
ASKED = "0a:11:22:33:44:55"
RANGES = {
    "type": "host-local",
    "ranges": [[{"subnet": A, "rangeEnd": "fd00:88:a::2"}, {"subnet": B}]],
}


def mac(node: Node, pod: int, ifname: str = "eth0") -> str:
    return str(node.links(f"p{pod}")[ifname]["address"])


def asking(mac: str) -> dict[str, dict[str, str]]:
    return {"env": {"CNI_ARGS": f"MAC={mac}"}}


def reaches(node: Node, pod: str, address: str) -> bool:
    return node.pod_run(pod, ["ping", "-c2", "-i0.2", "-W5", address], check=False).status == 0


# ------------------------------------------------------------------------------------ of addresses


def test_ipv6_pods_of_two_ranges_reach_each_other(node: Node) -> None:
    conf = make_conf(isDefaultGateway=True, ipam=RANGES)
    attach(node, conf, 1)
    attach(node, conf, 2)
    assert node.addresses("p1")["eth0"] == ["fd00:88:a::2/64"]
    assert node.addresses("p2")["eth0"] == ["fd00:88:b::2/64"]
    assert mac(node, 1) != mac(node, 2)
    assert reaches(node, "p1", "fd00:88:b::2")
    assert reaches(node, "p2", "fd00:88:a::2")


def test_ipv6_pods_of_two_networks_reach_each_other(node: Node) -> None:
    for pod, subnet in ((1, A), (2, B)):
        conf = make_conf(name=f"net{pod}", isDefaultGateway=True, ipam=host_local(subnet))
        attach(node, conf, pod)
    assert mac(node, 1) != mac(node, 2)
    assert reaches(node, "p1", "fd00:88:b::2")


def test_an_ipv6_address_that_is_used_again_has_the_same_mac(node: Node) -> None:
    conf = make_conf(ipam={**RANGES, "ranges": [[{"subnet": A, "rangeEnd": "fd00:88:a::2"}]]})
    first = attach(node, conf, 1)
    delete(node, conf, 1)
    second = attach(node, conf, 2)
    assert first["ips"] == second["ips"]
    assert first["interfaces"][2]["mac"] == second["interfaces"][2]["mac"]


# ------------------------------------------------------------------------------------- asked for


def refused(node: Node, conf: dict[str, Any], asked: str, *words: str) -> None:
    """An ADD that asks for a MAC in use fails, says whose it is, and leaves nothing."""
    before = traces(node)
    error = add(node, conf, 2, **asking(asked)).error
    assert error["code"] == 103
    for word in (asked, *words):
        assert word in error["msg"]
    assert traces(node) == before
    assert set(node.links("p2")) == {"lo"}


def test_a_mac_that_another_pod_asked_for(node: Node) -> None:
    attach(node, make_conf(), 1, **asking(ASKED))
    refused(node, make_conf(), ASKED, "cni0", "flannel:net:c1:eth0")
    delete(node, make_conf(), 1)
    attach(node, make_conf(), 2, **asking(ASKED))


def test_a_mac_that_another_network_s_pod_asked_for(node: Node) -> None:
    attach(node, make_conf(), 1, **asking(ASKED))
    layer2 = make_conf(name="other", isGateway=None, ipam=None)
    refused(node, layer2, ASKED, "flannel:net:c1:eth0")


def test_another_bridge_may_have_it(node: Node) -> None:
    attach(node, make_conf(), 1, **asking(ASKED))
    other = make_conf(name="other", bridge="cni1", ipam=host_local("10.89.0.0/24"))
    attach(node, other, 2, **asking(ASKED))


def test_the_mac_that_follows_from_a_living_pod_s_address(node: Node) -> None:
    attach(node, make_conf(ipam=host_local(A)), 1)
    refused(node, make_conf(ipam=host_local(A)), mac(node, 1), "flannel:net:c1:eth0")


def test_the_mac_of_the_next_pod(node: Node) -> None:
    attach(node, make_conf(), 1)
    refused(node, make_conf(), "0a:58:0a:58:01:07", "10.88.1.7")


def test_the_mac_of_its_own_address(node: Node) -> None:
    attach(node, make_conf(), 1, **asking("0a:58:0a:58:01:02"))


def test_the_mac_of_the_bridge(node: Node) -> None:
    attach(node, make_conf(), 1)
    refused(node, make_conf(), node.links()["cni0"]["address"], "cni0 has it")


def test_the_mac_of_a_port(node: Node) -> None:
    attach(node, make_conf(), 1)
    node.run(["ip", "link", "add", "up0", "address", ASKED, "type", "veth", "peer", "name", "up1"])
    node.run(["ip", "link", "set", "up0", "master", "cni0"])
    refused(node, make_conf(), ASKED, "up0 has it")


# ------------------------------------------------------------------------------------- the host's


def test_a_bridge_keeps_the_mac_of_its_uplink(node: Node) -> None:
    mac = "7e:00:00:00:00:01"
    node.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    node.run(["ip", "link", "add", "up0", "address", mac, "type", "veth", "peer", "name", "up1"])
    node.run(["ip", "link", "set", "up0", "up", "master", "br0"])
    for pod in range(1, 9):  # a random MAC is lower half of the time
        attach(node, make_conf(bridge="br0", isGateway=None, ipam=None), pod)
        assert node.links()["br0"]["address"] == mac

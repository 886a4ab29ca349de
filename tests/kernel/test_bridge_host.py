"""What belongs to the host stays as it is: its bridges, its settings, its IPv6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    GATEWAY,
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    call,
    check,
    delete,
    host_local,
    make_conf,
    set_sysctl,
    sysctl,
    traces,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

BR0 = ["accept_ra", "accept_dad", "disable_ipv6", "autoconf"]
LAYER2 = make_conf(bridge="br0", isGateway=None, ipam=None)
DUAL = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET, SUBNET6))


def host_bridge(node: Node, *addresses: str, mtu: int = 1500, name: str = "br0") -> None:
    """A bridge as a host makes it for its uplink, with its own addresses."""
    node.run(["ip", "link", "add", name, "up", "type", "bridge"])
    pair = [
        "up0",
        "address",
        "02:42:ac:11:00:03",
        "mtu",
        str(mtu),
        "type",
        "veth",
        "peer",
        "name",
        "up1",
        "mtu",
        str(mtu),
    ]
    node.run(["ip", "link", "add", *pair])
    node.run(["ip", "link", "set", "up0", "up", "master", name])
    node.run(["ip", "link", "set", "up1", "up"])
    for address in addresses:
        node.run(["ip", "address", "add", address, "dev", name, "nodad"])
    if mtu >= 1280:
        set_sysctl(node, f"net/ipv6/conf/{name}/accept_ra", "1")


def state(node: Node, name: str = "br0") -> dict[str, Any]:
    """What a host may have set of a bridge."""
    link = node.links()[name]
    data = link["linkinfo"]["info_data"]
    return {
        **{key: link.get(key) for key in ("mtu", "address", "promiscuity", "ifalias", "group")},
        "up": "UP" in link["flags"],
        "vlan_filtering": data["vlan_filtering"],
        "stp": data["stp_state"],
        "addresses": node.addresses()[name],
        "set": node.run(["cat", f"/sys/class/net/{name}/addr_assign_type"]).stdout,
        **{key: sysctl(node, f"net/ipv6/conf/{name}/{key}") for key in BR0},
    }


# -------------------------------------------------------------------------------- the host's bridge

CONFS: dict[str, dict[str, Any]] = {
    "layer 2": {"isGateway": None, "ipam": None},
    "layer 2, large": {"isGateway": None, "ipam": None, "mtu": 9000},
    "layer 2, addresses": {"isGateway": None, "ipam": host_local("192.168.7.0/24")},
    "the host is the gateway": {"ipam": host_local("192.168.7.0/24"), "mtu": 9000},
    "default gateway": {"isDefaultGateway": True, "ipam": host_local("192.168.7.0/24")},
}


@pytest.mark.parametrize("case", CONFS)
def test_a_bridge_of_the_host_stays_as_it_is(node: Node, case: str) -> None:
    host_bridge(node, "192.168.7.1/24", "2001:db8::5/64")
    before = state(node)
    conf = make_conf(bridge="br0", **CONFS[case])
    for pod in (1, 2):
        result = attach(node, conf, pod)
        assert state(node) == before
        outcome = check(node, conf, result, pod)
        assert outcome.status == 0, outcome
    for pod in (1, 2):
        delete(node, conf, pod)
    assert state(node) == before


def test_it_does_so_without_an_address_of_its_own(node: Node) -> None:
    host_bridge(node)
    before = state(node)
    attach(node, make_conf(bridge="br0", isDefaultGateway=True, mtu=9000))
    assert state(node) == {**before, "addresses": [GATEWAY]}


def test_it_lives_from_router_advertisements_in_a_node_that_is_a_container(node: Node) -> None:
    """There the uplink is one end of a veth pair, as a pod's port is."""
    node.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    node.add_pod("outside")
    pair = ["eth0", "address", "02:42:ac:11:00:02", "up", "master", "br0"]
    pair += ["type", "veth", "peer", "name", "up1"]
    node.run(["ip", "link", "add", *pair, "netns", "outside"])
    before = state(node)
    attach(node, make_conf(bridge="br0", mtu=9000))
    assert state(node) == {**before, "addresses": [GATEWAY]}


def test_a_large_one_is_not_cut_by_pods_without_an_mtu(node: Node) -> None:
    host_bridge(node, mtu=9000)
    assert node.links()["br0"]["mtu"] == 9000
    attach(node, LAYER2)
    assert node.links()["br0"]["mtu"] == node.links("p1")["eth0"]["mtu"] == 9000


def test_the_result_tells_how_it_has_become(node: Node) -> None:
    """One without ports of the host's has the MAC and MTU of its first pod's port."""
    node.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    conf = {**LAYER2, "mtu": 1400}
    result = attach(node, conf)
    link = node.links()["br0"]
    told = result["interfaces"][0]
    assert (told["mac"], told["mtu"]) == (link["address"], link["mtu"])
    assert check(node, conf, result).status == 0
    attach(node, conf, 2)
    assert check(node, conf, result).status == 0


def test_its_address_is_not_replaced_although_it_has_no_port_yet(node: Node) -> None:
    node.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    node.run(["ip", "address", "add", "192.168.7.9/24", "dev", "br0"])
    before = state(node)
    conf = make_conf(bridge="br0")
    error = add(node, conf).error
    assert error["code"] == 104
    assert "192.168.7.9/24, and the bridge is the host's" in error["msg"]
    assert call(node, "STATUS", conf).error["code"] == 50
    assert state(node) == before
    assert traces(node) == []
    attach(node, {**conf, "forceAddress": True})
    assert node.addresses()["br0"] == [GATEWAY]


def test_promiscuous_mode_is_the_host_s_to_set(node: Node) -> None:
    host_bridge(node)
    conf = {**LAYER2, "promiscMode": True}
    before = state(node)
    error = add(node, conf).error
    assert error["code"] == 104
    assert "ip link set br0 promisc on" in error["details"]
    assert call(node, "STATUS", conf).error["code"] == 50
    assert state(node) == before
    node.run(["ip", "link", "set", "br0", "promisc", "on"])
    result = attach(node, conf)
    assert check(node, conf, result).status == 0
    other = attach(node, LAYER2, 2)  # a network that does not ask for it
    assert check(node, LAYER2, other, 2).status == 0


# --------------------------------------------------------------------------------------------- ours


def test_what_go_s_plugin_has_left_is_ours(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "up", "type", "bridge"])
    node.run(["ip", "address", "add", GATEWAY, "dev", "cni0"])
    node.add_pod("old")
    pair = ["veth12ab34cd", "up", "master", "cni0", "type", "veth", "peer", "name", "eth0"]
    node.run(["ip", "link", "add", *pair, "netns", "old"])
    set_sysctl(node, "net/ipv6/conf/cni0/accept_ra", "1")
    attach(node, make_conf(mtu=1400))
    assert node.links()["cni0"]["mtu"] == 1400
    assert node.links()["cni0"]["ifalias"] == "flannel:bridge"
    assert sysctl(node, "net/ipv6/conf/cni0/accept_ra") == "0"


def test_what_the_host_has_made_its_own_is_its_own(node: Node) -> None:
    """Somebody has put an uplink into the bridge that an ADD made."""
    attach(node, make_conf(mtu=1400))
    node.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"])
    node.run(["ip", "link", "set", "up0", "up", "master", "cni0"])
    node.run(["ip", "link", "set", "cni0", "mtu", "1500"])
    set_sysctl(node, "net/ipv6/conf/cni0/accept_ra", "1")
    before = state(node, "cni0")
    attach(node, make_conf(mtu=1400), 2)
    assert state(node, "cni0") == before


def test_a_layer_2_bridge_of_ours_is_repaired(node: Node) -> None:
    conf = make_conf(isGateway=None, ipam=None, mtu=1400)
    attach(node, conf)
    node.run(["ip", "link", "set", "cni0", "mtu", "1500"])
    attach(node, conf, 2)
    assert node.links()["cni0"]["mtu"] == 1400


# ---------------------------------------------------------------------------- a read-only /proc/sys

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
FORWARD = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]


def read_only(node: Node, **switches: str) -> None:
    for path in FORWARD:
        set_sysctl(node, path, "1")
    for path, value in switches.items():
        set_sysctl(node, path, value)
    node.run(["sh", "-c", READ_ONLY])


@pytest.mark.parametrize("conf", [make_conf(), DUAL, LAYER2], ids=["IPv4", "dual-stack", "layer 2"])
def test_what_is_right_already_is_not_written(node: Node, conf: dict[str, Any]) -> None:
    read_only(node)
    assert call(node, "STATUS", conf).status == 0
    outcome = add(node, conf)
    assert outcome.status == 0, outcome
    assert check(node, conf, outcome.result).status == 0
    delete(node, conf)


def test_what_could_not_be_set_is_told_with_its_value(node: Node) -> None:
    read_only(node)
    stderr = add(node, make_conf()).stderr
    assert "net/ipv6/conf/cni0/accept_ra is 1 and cannot be set to 0: Read-only" in stderr


@pytest.mark.parametrize("path", FORWARD)
def test_what_is_wrong_and_cannot_be_written_is_named(node: Node, path: str) -> None:
    read_only(node, **{path: "0"})
    error = add(node, DUAL).error
    assert error["code"] == 101
    for word in (f"{path} is 0 and cannot be set to 1: Read-only file system", "privileged"):
        assert word in f"{error['msg']} {error['details']}"
    assert traces(node) == []
    status = call(node, "STATUS", DUAL).error
    assert status["code"] == 50
    assert f"{path} is 0 and {path} cannot be set to 1" in status["msg"]


def test_ipv6_that_cannot_be_switched_on_is_named(node: Node) -> None:
    read_only(node, **{"net/ipv6/conf/default/disable_ipv6": "1"})
    assert "net/ipv6/conf/cni0/disable_ipv6 is 1 and cannot be set" in add(node, DUAL).error["msg"]
    node.run(["ip", "link", "del", "cni0"])
    for path in ("default", "cni0"):
        assert f"net/ipv6/conf/{path}/disable_ipv6" in call(node, "STATUS", DUAL).error["msg"]


# -------------------------------------------------------------------------------------- IPv6 is off


@pytest.mark.parametrize("names", [("all",), ("default",), ("all", "default", "cni0")], ids=str)
def test_ipv6_that_the_host_does_not_want_is_on_for_the_bridge(
    node: Node, names: tuple[str, ...]
) -> None:
    if "cni0" in names:
        attach(node, DUAL, 9)
    for name in names:
        set_sysctl(node, f"net/ipv6/conf/{name}/disable_ipv6", "1")
    assert call(node, "STATUS", DUAL).status == 0
    attach(node, DUAL, 1)
    attach(node, DUAL, 2)
    assert sysctl(node, "net/ipv6/conf/cni0/disable_ipv6") == "0"
    address = next(one for one in node.addresses("p2")["eth0"] if ":" in one).split("/")[0]
    for where in (["ip", "netns", "exec", "p1"], []):
        node.run([*where, "ping", "-c1", "-W5", address])


def test_on_the_host_s_bridge_it_stays_off_and_is_named(node: Node) -> None:
    host_bridge(node)
    set_sysctl(node, "net/ipv6/conf/br0/disable_ipv6", "1")
    conf = {**DUAL, "bridge": "br0"}
    for error in (add(node, conf).error, call(node, "STATUS", conf).error):
        assert "net/ipv6/conf/br0/disable_ipv6 is 1, and the bridge is the host's" in error["msg"]
    assert sysctl(node, "net/ipv6/conf/br0/disable_ipv6") == "1"
    attach(node, make_conf(bridge="br0"))  # IPv4 does without


# -------------------------------------------------------------------------------------- a small MTU


@pytest.mark.parametrize(
    "ipam",
    [
        host_local(SUBNET, SUBNET6),
        host_local(SUBNET6),
        {"type": "host-local", "subnet": SUBNET6},
        {"type": "host-local", "ranges": [[{"subnet": SUBNET}], [{"Subnet": SUBNET6}]]},
    ],
    ids=["dual-stack", "IPv6", "legacy", "spelling"],
)
@pytest.mark.parametrize("mtu", [68, 1279])
def test_less_than_ipv6_needs_is_refused_before_any_change(
    node: Node, mtu: int, ipam: dict[str, Any]
) -> None:
    conf = make_conf(mtu=mtu, ipam=ipam)
    for outcome in (add(node, conf), call(node, "STATUS", conf)):
        assert outcome.error["code"] == 7
        assert f"invalid MTU {mtu}: IPv6 needs at least 1280" in outcome.error["msg"]
    assert "cni0" not in node.links()
    assert not node.files("/var/lib/cni")


def test_1280_is_enough(node: Node) -> None:
    attach(node, make_conf(mtu=1280, ipam=host_local(SUBNET, SUBNET6)))
    node.pod_run("p1", ["ping", "-c1", "-W5", "fd00:88::1"])


def test_a_network_without_ipv6_does_not_take_it_from_the_bridge(node: Node) -> None:
    attach(node, DUAL, 1)
    conf = make_conf(name="other", mtu=1000, forceAddress=True)
    for outcome in (add(node, conf, 2), call(node, "STATUS", conf)):
        assert outcome.status == 1
        assert '"cni0" has fd00:88::1/64' in outcome.error["msg"]
    assert "fd00:88::1/64" in node.addresses()["cni0"]
    node.pod_run("p1", ["ping", "-c1", "-W5", "fd00:88::1"])


def test_a_small_bridge_of_the_host_takes_no_ipv6_pods(node: Node) -> None:
    host_bridge(node, mtu=1000)
    conf = make_conf(bridge="br0", isGateway=None, ipam=host_local(SUBNET6))
    error = add(node, conf).error
    assert (error["code"], "invalid MTU 1000" in error["msg"]) == (7, True)
    assert call(node, "STATUS", conf).error["code"] == 50


# ------------------------------------------------------------------------------------ a full bridge


def test_a_bridge_with_all_the_ports_that_the_kernel_allows(node: Node) -> None:
    attach(node, make_conf())
    lines = [
        line
        for n in range(511)
        for line in (
            f"link add a{n} type veth peer name b{n}",
            f"link set a{n} master cni0",
            f"link set b{n} master cni0",
        )
    ]
    node.run(["ip", "-batch", "-"], stdin="\n".join(lines))
    before = traces(node)
    error = add(node, make_conf(), 2).error
    assert error["code"] == 101
    assert "bridge cni0 has 1023 ports" in error["msg"]
    assert "dmesg" not in error["details"]
    status = call(node, "STATUS", make_conf()).error
    assert (status["code"], status["msg"]) == (50, error["msg"])
    assert traces(node) == before
    node.run(["ip", "link", "del", "a0"])
    attach(node, make_conf(), 2)

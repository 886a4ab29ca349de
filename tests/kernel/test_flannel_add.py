"""ADD of `flannel` on a node as flanneld leaves it: the result, the kernel, the files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    GOLDEN,
    LEASES,
    STATE,
    add,
    conf_with,
    leases,
    must_add,
    ping,
    rules,
    states,
    with_result,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

OLD_CONF = {key: value for key, value in CONF.items() if key != "cniVersion"}
WITH_INTERFACES = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture(autouse=True)
def _subnet(node: Node) -> None:
    node.write_subnet_env()


def macs(node: Node, result: dict[str, Any]) -> list[str]:
    """Return the MACs that the kernel has for the result's three interfaces."""
    bridge, veth, _ = (interface["name"] for interface in result["interfaces"])
    links = node.links()
    return [
        str(links[bridge]["address"]),
        str(links[veth]["address"]),
        str(node.links("a")["eth0"]["address"]),
    ]


# --------------------------------------------------------------------------------------- the result


@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0"])
def test_result_before_interfaces_were_invented(node: Node, version: str) -> None:
    conf = OLD_CONF | ({"cniVersion": version} if version else {})
    outcome = add(node, conf=conf)
    wanted = {
        "cniVersion": version or "0.1.0",
        "ip4": {
            "ip": "10.244.1.2/24",
            "gateway": "10.244.1.1",
            "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
        },
        "dns": {},
    }
    assert outcome.stdout == json.dumps(wanted, indent=4)


@pytest.mark.parametrize("version", WITH_INTERFACES)
def test_result_with_interfaces(node: Node, version: str) -> None:
    outcome = add(node, conf=conf_with(cniVersion=version))
    old = version.startswith("0.")
    bridge, veth, pod = macs(node, outcome.result)
    mtu = {"mtu": 1450} if version == "1.1.0" else {}
    ip = {"interface": 2, "address": "10.244.1.2/24", "gateway": "10.244.1.1"}
    wanted: dict[str, Any] = {
        "cniVersion": version,
        "interfaces": [
            {"name": "cni0", "mac": bridge, **mtu},
            {"name": outcome.result["interfaces"][1]["name"], "mac": veth, **mtu},
            {"name": "eth0", "mac": pod, **mtu, "sandbox": "/run/netns/a"},
        ],
        "ips": [{"version": "4", **ip} if old else ip],
        "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.1.1"}],
        **({"dns": {}} if old else {}),
    }
    assert outcome.result == wanted


@pytest.mark.parametrize("version", WITH_INTERFACES)
def test_result_is_printed_as_the_reference_library_prints_it(node: Node, version: str) -> None:
    """Four blanks, no final line break; keys in the order of the types, from 1.0.0 on in ABC."""
    outcome = add(node, conf=conf_with(cniVersion=version))
    assert outcome.stdout == json.dumps(outcome.result, indent=4)
    if version.startswith("0."):
        top = ["cniVersion", "interfaces", "ips", "routes", "dns"]
        ip = ["version", "interface", "address", "gateway"]
        interface = ["name", "mac", "sandbox"]
    else:
        top = ["cniVersion", "interfaces", "ips", "routes"]
        ip = ["address", "gateway", "interface"]
        interface = ["mac", *(["mtu"] if version == "1.1.0" else []), "name", "sandbox"]
    assert list(outcome.result) == top
    assert list(outcome.result["ips"][0]) == ip
    assert list(outcome.result["interfaces"][2]) == interface


def test_dns_of_the_conf_is_in_the_result(node: Node) -> None:
    dns = {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]}
    assert must_add(node, conf=conf_with(dns=dns))["dns"] == dns


def test_nothing_is_written_to_stderr(node: Node) -> None:
    assert add(node).stderr == ""


def test_debug_setting_tells_the_commands(node: Node) -> None:
    told = add(node, env={"CNI_FLANNEL_DEBUG": "1"}).stderr
    assert "ip link add cni0 up" in told
    assert "ip -n POD address add 10.244.1.2/24 dev eth0" in told


# --------------------------------------------------------------------------------------- the kernel


def test_bridge_is_up_with_the_gateway_address_and_the_mtu(node: Node) -> None:
    must_add(node)
    bridge = node.links()["cni0"]
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    assert bridge["mtu"] == 1450
    assert "UP" in bridge["flags"]
    assert node.addresses()["cni0"] == ["10.244.1.1/24"]


def test_host_veth_is_a_port_and_says_whose_it_is(node: Node) -> None:
    name = must_add(node)["interfaces"][1]["name"]
    veth = node.links()[name]
    assert (veth["master"], veth["mtu"], veth["ifalias"]) == (
        "cni0",
        1450,
        "flannel:cbr0:cid-a:eth0",
    )
    assert veth["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert "UP" in veth["flags"]


def test_pod_has_its_interface_address_and_routes(node: Node) -> None:
    must_add(node)
    link = node.links("a")["eth0"]
    assert (link["mtu"], "UP" in link["flags"]) == (1450, True)
    assert node.addresses("a")["eth0"] == ["10.244.1.2/24"]
    routes = {route["dst"]: route.get("gateway") for route in node.routes("a")}
    assert routes == {
        "default": "10.244.1.1",
        "10.244.0.0/16": "10.244.1.1",
        "10.244.1.0/24": None,
    }


def test_forwarding_is_switched_on(node: Node) -> None:
    node.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    must_add(node)
    assert node.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"


def test_bridge_keeps_its_mac_when_ports_come_and_go(node: Node) -> None:
    found = {must_add(node, pod)["interfaces"][0]["mac"] for pod in ("a", "b", "c")}
    assert found == {node.links()["cni0"]["address"]}


def test_pods_reach_each_other_and_the_gateway(node: Node) -> None:
    must_add(node, "a")
    must_add(node, "b")
    assert ping(node, "a", "10.244.1.1")
    assert ping(node, "a", "10.244.1.3")
    assert ping(node, "b", "10.244.1.2")


def test_next_pod_with_the_same_address_is_reached_at_once(node: Node) -> None:
    small = {"ipam": {"rangeEnd": "10.244.1.2"}}
    must_add(node, "a", conf=conf_with(**small))
    assert node.run(["ping", "-c1", "-W5", "10.244.1.2"]).status == 0
    assert node.cni("DEL", conf_with(**small), container_id="cid-a").status == 0
    must_add(node, "b", conf=conf_with(**small))
    assert node.run(["ping", "-c1", "-W5", "10.244.1.2"]).status == 0


@pytest.mark.parametrize(("ip_masq", "written"), [("true", False), ("false", True)])
def test_pod_is_masqueraded_unless_the_daemon_does_it(
    node: Node, ip_masq: str, *, written: bool
) -> None:
    node.write_subnet_env(ipmasq=ip_masq)
    must_add(node)
    assert any("masquerade" in line.lower() for line in rules(node)) is written


def test_repairs_a_bridge_that_somebody_took_down_and_stripped(node: Node) -> None:
    must_add(node, "a")
    node.run(["ip", "address", "flush", "dev", "cni0"])
    node.run(["ip", "link", "set", "cni0", "down", "mtu", "1300"])
    must_add(node, "b")
    assert node.addresses()["cni0"] == ["10.244.1.1/24"]
    assert node.links()["cni0"]["mtu"] == 1450
    assert ping(node, "b", "10.244.1.2")


def test_bridge_without_ports_moves_to_the_nodes_new_subnet(node: Node) -> None:
    must_add(node)
    assert node.cni("DEL", CONF, container_id="cid-a").status == 0
    node.write_subnet_env(subnet="10.244.9.1/24")
    must_add(node, "b")
    assert node.addresses()["cni0"] == ["10.244.9.1/24"]


def test_bridge_with_ports_of_another_subnet_is_in_the_way(node: Node) -> None:
    must_add(node)
    node.write_subnet_env(subnet="10.244.9.1/24")
    error = add(node, "b").error
    assert error["code"] == 104
    assert '"cni0" already has an IP address different from 10.244.9.1/24' in error["msg"]
    assert "10.244.1.0/24" in error["details"]
    assert "10.244.9.0/24" in error["details"]
    assert node.addresses()["cni0"] == ["10.244.1.1/24"]
    assert list(states(node)) == ["cid-a"]


# ---------------------------------------------------------------------------------------- the files


def test_state_file_is_what_the_reference_plugin_writes(node: Node) -> None:
    must_add(node)
    assert states(node) == {"cid-a": GOLDEN}
    text = node.files(STATE)["cid-a"].decode()
    assert text == json.dumps(GOLDEN, sort_keys=True, separators=(",", ":"))


def test_state_file_is_the_reference_test_suites(node: Node) -> None:
    node.write_subnet_env(network="10.1.0.0/16", subnet="10.1.17.1/24", mtu="1472")
    conf = {"name": "cni-flannel", "type": "flannel"}
    must_add(node, conf=conf)
    golden = (
        '{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],'
        '"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":true,'
        '"mtu":1472,"name":"cni-flannel","type":"bridge"}'
    )
    assert node.files(STATE)["cid-a"].decode() == golden


def test_state_file_is_for_root_alone(node: Node) -> None:
    must_add(node)
    assert node.path(f"{STATE}/cid-a").stat().st_mode & 0o777 == 0o600
    assert node.path(STATE).stat().st_mode & 0o777 == 0o700


def test_lease_file_holds_container_and_interface(node: Node) -> None:
    must_add(node)
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0"}


def test_last_reserved_address_is_noted(node: Node) -> None:
    must_add(node, "a")
    must_add(node, "b")
    assert node.files(f"{LEASES}/cbr0")["last_reserved_ip.0"] == b"10.244.1.3"


def test_data_directories_can_be_elsewhere(node: Node) -> None:
    conf = conf_with(dataDir="/run/state", ipam={"dataDir": "/run/leases"})
    must_add(node, conf=conf)
    assert list(node.files("/run/state")) == ["cid-a"]
    assert "10.244.1.2" in node.files("/run/leases/cbr0")
    assert node.files("/var/lib") == {}


# ----------------------------------------------------------------------------------------- the conf


def test_users_limits_narrow_the_nodes_range(node: Node) -> None:
    limits = {
        "rangeStart": "10.244.1.10",
        "rangeEnd": "10.244.1.14",
        "gateway": "10.244.1.254",
        "exclude": ["10.244.1.10", "10.244.1.12/31"],
    }
    found = [must_add(node, pod, conf=conf_with(ipam=limits))["ips"][0] for pod in ("a", "b")]
    assert found == [
        {"interface": 2, "address": "10.244.1.11/24", "gateway": "10.244.1.254"},
        {"interface": 2, "address": "10.244.1.14/24", "gateway": "10.244.1.254"},
    ]


@pytest.mark.parametrize(
    "wish",
    [
        {"args": {"cni": {"ips": ["10.244.1.77"]}}},
        {"runtimeConfig": {"ips": ["10.244.1.77/24"]}},
        {"runtimeConfig": {"IPs": ["10.244.1.77"]}},
    ],
    ids=["args", "runtimeConfig", "containerd's capitals"],
)
def test_requested_address_reaches_the_delegate(node: Node, wish: dict[str, Any]) -> None:
    assert must_add(node, conf=conf_with(**wish))["ips"][0]["address"] == "10.244.1.77/24"


def test_requested_address_by_cni_args(node: Node) -> None:
    wish = "IgnoreUnknown=1;K8S_POD_NAME=web-0;IP=10.244.1.78"
    outcome = add(node, env={"CNI_ARGS": wish})
    assert outcome.result["ips"][0]["address"] == "10.244.1.78/24"


def test_requested_mac_is_the_pods(node: Node) -> None:
    mac = "0a:00:00:00:00:07"
    must_add(node, conf=conf_with(runtimeConfig={"mac": mac}))
    assert node.links("a")["eth0"]["address"] == mac


def test_users_routes_come_before_the_networks(node: Node) -> None:
    ipam = {"routes": [{"dst": "192.0.2.0/24", "gw": "10.244.1.1"}]}
    assert must_add(node, conf=conf_with(ipam=ipam))["routes"] == [
        {"dst": "192.0.2.0/24", "gw": "10.244.1.1"},
        {"dst": "10.244.0.0/16"},
        {"dst": "0.0.0.0/0", "gw": "10.244.1.1"},
    ]


def test_result_of_an_earlier_plugin_is_no_obstacle(node: Node) -> None:
    """Somebody may put this plugin behind another one."""
    earlier = {"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}]}
    assert add(node, conf=with_result(CONF, earlier)).status == 0

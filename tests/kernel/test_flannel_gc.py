"""GC of `flannel`: what is not listed goes, what is listed stays, an absent list proves little."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    LEASES,
    STATE,
    call,
    conf_with,
    leases,
    must_add,
    ping,
    remains,
    rules,
    snapshot,
    states,
    until,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome

PODS = ("a", "b", "c")
KEY = "cni.dev/valid-attachments"


@pytest.fixture
def pods(node: Node) -> tuple[str, ...]:
    """Attach three masqueraded pods."""
    node.write_subnet_env(ipmasq="false")
    for pod in PODS:
        must_add(node, pod)
    return PODS


def listing(*names: str, conf: dict[str, Any] = CONF) -> dict[str, Any]:
    """Return the conf for a GC in which the pods are listed."""
    listed = [{"containerID": f"cid-{name}", "ifname": "eth0"} for name in names]
    return conf | {KEY: listed, "cni.dev/attachments": listed}


def collect(node: Node, conf: dict[str, Any]) -> Outcome:
    """GC, which must succeed and print nothing to stdout."""
    done = call(node, "GC", conf=conf)
    assert (done.status, done.stdout) == (0, ""), done
    return done


def veths(node: Node) -> set[str]:
    """Return whose host veths there are."""
    links = (link for name, link in node.links().items() if name.startswith("veth"))
    return {link["ifalias"].split(":")[2] for link in links}


def test_what_is_not_listed_goes(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    collect(node, listing("b"))
    assert veths(node) == {"cid-b"}
    assert leases(node) == {"10.244.1.3": "cid-b\r\neth0"}
    assert list(states(node)) == ["cid-b"]
    text = "\n".join(rules(node))
    assert "cid-b" in text
    assert "cid-a" not in text
    assert "cid-c" not in text


def test_what_is_listed_goes_on_working(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    before = snapshot(node, "b")["links"][1]
    collect(node, listing("b", "c"))
    assert snapshot(node, "b")["links"][1] == before
    assert ping(node, "b", "10.244.1.4")


def test_all_are_listed(node: Node, pods: tuple[str, ...]) -> None:
    before = snapshot(node)
    collect(node, listing(*pods))
    assert snapshot(node) == before


def test_empty_list_frees_the_network(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    collect(node, listing())
    assert remains(node).keys() <= {"neighbours"}


def test_absent_list_frees_nothing_that_may_live(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    before = snapshot(node)
    collect(node, CONF)
    assert snapshot(node) == before


def test_absent_list_frees_the_lease_of_a_pod_that_is_provably_gone(
    node: Node, pods: tuple[str, ...]
) -> None:
    del pods
    node.del_pod("a")
    assert until(lambda: veths(node) == {"cid-b", "cid-c"})
    done = collect(node, CONF)
    assert sorted(leases(node)) == ["10.244.1.3", "10.244.1.4"]
    assert "10.244.1.2" in done.stderr


@pytest.mark.parametrize("is_listed", [True, False])
def test_what_the_host_knows_of_a_collected_pod_goes(node: Node, *, is_listed: bool) -> None:
    """A gateway outside of the subnet: the host has a route to each pod."""
    ranges = [[{"subnet": "10.77.0.0/24", "gateway": "169.254.1.1"}]]
    ipam = {"type": "host-local", "ranges": ranges}
    conf = {**CONF, "type": "bridge", "isDefaultGateway": True, "ipam": ipam}
    for pod in ("a", "b"):
        must_add(node, pod, conf=conf, plugin="bridge")
        assert ping(node, pod, "169.254.1.1")
    node.del_pod("a")
    assert until(lambda: veths(node) == {"cid-b"})
    assert len(pod_routes(node)) == 2
    given = listing("b", conf=conf) if is_listed else conf
    assert call(node, "GC", conf=given, plugin="bridge").status == 0
    (left,) = leases(node)
    assert pod_routes(node) == [left]
    assert {entry["dst"] for entry in node.neighbours() if entry["dst"] in PAIR} <= {left}
    assert ping(node, "b", "169.254.1.1")


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_mac_check_of_a_collected_pod_goes(node: Node, *, is_gone: bool) -> None:
    """Its rules are found by the lease where the namespace, and the link with it, is gone."""
    node.write_subnet_env()
    conf = conf_with(delegate={"isDefaultGateway": True, "macspoofchk": True})
    for pod in ("a", "b"):
        must_add(node, pod, conf=conf)
    if is_gone:
        node.del_pod("a")
        assert until(lambda: veths(node) == {"cid-b"})
    assert checked(node) == {"cid-a", "cid-b"}
    collect(node, listing("b", conf=conf))
    assert checked(node) == {"cid-b"}


def checked(node: Node) -> set[str]:
    """The containers that rules against foreign MACs name."""
    text = "\n".join(rules(node))
    return {name for name in ("cid-a", "cid-b") if f"cni-br-iface-{name}-eth0" in text}


PAIR = ("10.77.0.1", "10.77.0.2", "10.77.0.3")


def pod_routes(node: Node) -> list[str]:
    """The pods that the host has a route to."""
    return [route["dst"] for route in node.routes() if route["dst"].startswith("10.77.0.")]


def test_interfaces_count_one_by_one(node: Node) -> None:
    node.write_subnet_env()
    other = conf_with(delegate={})
    must_add(node)
    must_add(node, conf=other, ifname="net1")
    collect(node, listing("a"))
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0"}
    assert list(states(node)) == ["cid-a"]
    assert set(node.links("a")) == {"lo", "eth0"}


def test_other_networks_are_left_alone(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    other = conf_with(name="other", subnetFile="/run/flannel/other.env", delegate={"bridge": "br1"})
    node.write_subnet_env("/run/flannel/other.env", subnet="10.244.8.1/24", ipmasq="false")
    must_add(node, "d", conf=other)
    collect(node, listing())
    assert veths(node) == {"cid-d"}
    assert leases(node, "other") == {"10.244.8.2": "cid-d\r\neth0"}
    assert list(states(node)) == ["cid-d"]
    assert any("cid-d" in rule for rule in rules(node))


@pytest.mark.parametrize("lost", [STATE, LEASES, "/run/flannel"])
def test_gc_with_a_part_already_gone(node: Node, pods: tuple[str, ...], lost: str) -> None:
    del pods
    shutil.rmtree(node.path(lost))
    collect(node, listing())
    assert remains(node).keys() <= {"neighbours"}


def test_old_lease_of_a_listed_container_stays(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    node.write(f"{LEASES}/cbr0/10.244.1.50", "cid-b")
    node.write(f"{LEASES}/cbr0/10.244.1.51", "cid-x")
    collect(node, listing("b"))
    assert sorted(leases(node)) == ["10.244.1.3", "10.244.1.50"]


def test_bookkeeping_of_the_leases_stays(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    collect(node, listing())
    assert {"lock", "last_reserved_ip.0"} <= node.files(f"{LEASES}/cbr0").keys()


def test_gc_goes_on_after_an_error_and_tells_it(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    directory = f"{LEASES}/cbr0"
    node.run(["mount", "--bind", directory, directory])
    node.run(["mount", "-o", "remount,bind,ro", directory])
    error = call(node, "GC", conf=listing("b")).error
    assert error["code"] == 5
    assert "read-only" in error["msg"]
    assert veths(node) == {"cid-b"}
    assert not any("cid-a" in rule for rule in rules(node))
    node.run(["umount", directory])
    collect(node, listing("b"))
    assert list(states(node)) == ["cid-b"]
    assert list(leases(node)) == ["10.244.1.3"]


@pytest.mark.parametrize("listed", ["cid-a", [1], [{"ifname": "eth0"}], {"containerID": 7}])
def test_list_that_is_none_frees_nothing(node: Node, pods: tuple[str, ...], listed: object) -> None:
    del pods
    before = snapshot(node)
    assert call(node, "GC", conf=CONF | {KEY: listed}).error["code"] == 7
    assert snapshot(node) == before


def test_strangers_links_are_left_alone(node: Node, pods: tuple[str, ...]) -> None:
    del pods
    node.run(["ip", "link", "add", "veth12345678", "type", "veth", "peer", "name", "other"])
    node.run(["ip", "link", "set", "veth12345678", "master", "cni0"])
    collect(node, listing())
    assert "veth12345678" in node.links()


def test_gc_on_a_node_that_never_had_a_pod(node: Node) -> None:
    collect(node, listing())
    assert set(node.links()) == {"lo"}
    assert node.files("/var/lib") == {}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_conf_of_a_version_without_gc(node: Node, version: str) -> None:
    error = call(node, "GC", conf=listing(conf=conf_with(cniVersion=version))).error
    assert (error["code"], error["msg"]) == (1, "config version does not allow GC")

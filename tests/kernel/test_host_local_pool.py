"""The executable `host-local`, and a pool that is full: it heals itself, or says what is wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    LEASES,
    add,
    address_of,
    conf_with,
    delete,
    leases,
    ping,
    running,
    until,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome

SMALL = conf_with(ipam={"rangeEnd": "10.244.1.3"})  # two addresses
FULL = (
    "failed to allocate for range 0: no IP addresses available in range set: 10.244.1.1-10.244.1.3"
)

LOCAL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "whatever",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/29"}]]},
}


@pytest.fixture
def full(node: Node) -> list[str]:
    """Attach two pods: then the pool is empty. Returns their addresses."""
    node.write_subnet_env()
    return [address_of(add(node, pod, conf=SMALL)) for pod in ("a", "b")]


def refuse(node: Node) -> None:
    """Expect that the next pod gets no address, and nothing of it stays."""
    before = leases(node)
    error = add(node, "z", conf=SMALL).error
    assert (error["code"], error["msg"]) == (102, FULL)
    assert leases(node) == before
    assert "cid-z" not in node.files("/var/lib/cni/flannel")


# ---------------------------------------------------------------------------------- through flannel


def test_full_pool_of_living_pods(node: Node, full: list[str]) -> None:
    del full
    refuse(node)
    assert ping(node, "a", "10.244.1.3")


def test_pod_whose_namespace_is_gone_gives_its_address(node: Node, full: list[str]) -> None:
    node.del_pod("a")
    assert until(lambda: sum(name.startswith("veth") for name in node.links()) == 1)
    outcome = add(node, "z", conf=SMALL)
    assert address_of(outcome) == full[0]
    assert f"took back {full[0]} from cid-a eth0" in outcome.stderr
    assert ping(node, "z", full[1])


def test_pod_without_its_link_keeps_its_address_while_its_namespace_lives(
    node: Node, full: list[str]
) -> None:
    """When in doubt, keep."""
    del full
    node.run(["ip", "-n", "a", "link", "del", "eth0"])
    refuse(node)


def test_pod_whose_namespace_lives_in_a_process_keeps_its_address(
    node: Node, full: list[str]
) -> None:
    del full
    with running(node, "ip", "netns", "exec", "a", "sleep", "60"):
        assert until(lambda: node.run(["ip", "netns", "pids", "a"]).stdout)
        node.run(["ip", "-n", "a", "link", "del", "eth0"])
        node.del_pod("a")
        refuse(node)


def test_lease_of_an_earlier_boot_is_given_back(node: Node, full: list[str]) -> None:
    """The machine was switched off: the file is older than the kernel's start."""
    node.run(["ip", "-n", "a", "link", "del", "eth0"])
    node.del_pod("a")
    os.utime(node.path(f"{LEASES}/cbr0/{full[0]}"), (1, 1))
    assert address_of(add(node, "z", conf=SMALL)) == full[0]


def test_lease_that_names_nobody_known_is_kept(node: Node, full: list[str]) -> None:
    """The reference plugin made it, and nothing tells whether its pod lives."""
    path = node.path(f"{LEASES}/cbr0/{full[0]}")
    delete(node, "a", conf=SMALL)
    path.write_bytes(b"somebody\r\neth0")
    refuse(node)


def test_lease_of_the_reference_plugin_is_judged_by_the_runtimes_cache(
    node: Node, full: list[str]
) -> None:
    delete(node, "a", conf=SMALL)
    node.path(f"{LEASES}/cbr0/{full[0]}").write_bytes(b"gone\r\neth0")
    cache = "/var/lib/cni/results/cbr0-gone-eth0"
    node.write(cache, '{"kind":"cniCacheV1","netns":"/run/netns/b","ifName":"eth0"}')
    refuse(node)
    node.write(cache, '{"kind":"cniCacheV1","netns":"/run/netns/gone","ifName":"eth0"}')
    refuse(node)  # nothing shows that a namespace has ever been there
    result = '{"interfaces":[{"name":"eth0","sandbox":"/run/netns/gone"}]}'
    node.write(cache, f'{{"kind":"cniCacheV1","netns":"/run/netns/gone","result":{result}}}')
    assert address_of(add(node, "z", conf=SMALL)) == full[0]


def test_empty_lease_is_nobodys(node: Node, full: list[str]) -> None:
    """What a power loss leaves of the reference plugin's file."""
    delete(node, "a", conf=SMALL)
    node.path(f"{LEASES}/cbr0/{full[0]}").write_bytes(b"")
    assert address_of(add(node, "z", conf=SMALL)) == full[0]


def test_exhausted_pool_leaves_no_veth(node: Node, full: list[str]) -> None:
    """The reference chain leaves one for every try."""
    del full
    before = set(node.links())
    for _ in range(3):
        refuse(node)
    assert set(node.links()) == before


# ----------------------------------------------------------------------------------- the executable


def local(node: Node, command: str, container_id: str = "c1", **changes: Any) -> Outcome:
    """Call host-local by itself, for a container whose namespace lives."""
    if command == "ADD" and not node.path(f"/run/netns/{container_id}").exists():
        node.add_pod(container_id)
    conf = {**LOCAL, **changes}
    netns = f"/run/netns/{container_id}"
    return node.cni(command, conf, container_id=container_id, netns=netns, plugin="host-local")


def test_executable_leases_and_releases(node: Node) -> None:
    assert local(node, "ADD").result == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.5.0.2/29", "gateway": "10.5.0.1"}],
    }
    assert leases(node, "net") == {"10.5.0.2": "c1\r\neth0"}
    for _ in range(2):
        assert local(node, "DEL") == (0, "", "")
    assert leases(node, "net") == {}


def test_executable_refuses_a_second_address(node: Node) -> None:
    assert local(node, "ADD").status == 0
    error = local(node, "ADD").error
    assert error["code"] == 103
    assert "10.5.0.2 has been allocated to c1, duplicate allocation is not allowed" in error["msg"]


def test_executable_takes_the_nodes_subnet(node: Node) -> None:
    node.write_subnet_env()
    ipam = {"type": "host-local", "subnetFile": "/run/flannel/subnet.env"}
    assert local(node, "ADD", ipam=ipam).result["ips"] == [
        {"address": "10.244.1.2/24", "gateway": "10.244.1.1"}
    ]


def test_executable_goes_round(node: Node) -> None:
    for number, wanted in enumerate(("2", "3", "4", "5", "6", "2", "3")):
        outcome = local(node, "ADD", f"c{number}")
        assert outcome.result["ips"][0]["address"] == f"10.5.0.{wanted}/29"
        assert local(node, "DEL", f"c{number}").status == 0


def test_executable_says_when_it_is_full(node: Node) -> None:
    for number in range(5):
        assert local(node, "ADD", f"c{number}").status == 0
    for command, code in (("STATUS", 50), ("ADD", 102)):
        error = local(node, command, "c9").error
        assert error["code"] == code
        assert "in range set: 10.5.0.1-10.5.0.6" in error["msg"]


def test_executable_takes_a_repeated_pods_address_back_when_it_is_gone(node: Node) -> None:
    assert local(node, "ADD").status == 0
    node.del_pod("c1")
    again = local(node, "ADD")
    assert again.result["ips"][0]["address"] == "10.5.0.3/29"
    assert leases(node, "net") == {"10.5.0.3": "c1\r\neth0"}


@pytest.mark.parametrize(
    ("listed", "left"), [([], []), (["c1"], ["10.5.0.3"]), (None, ["10.5.0.2", "10.5.0.3"])]
)
def test_executable_collects_garbage(node: Node, listed: list[str] | None, left: list[str]) -> None:
    """Containers c0 and c1 live, c2 is gone."""
    for number in range(3):
        assert local(node, "ADD", f"c{number}").status == 0
    node.del_pod("c2")
    changes: dict[str, Any] = {}
    if listed is not None:
        valid = [{"containerID": one, "ifname": "eth0"} for one in listed]
        changes["cni.dev/valid-attachments"] = valid
    done = local(node, "GC", **changes)
    assert (done.status, done.stdout) == (0, "")
    assert sorted(leases(node, "net")) == left

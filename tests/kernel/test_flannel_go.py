"""Ours and the reference plugins on one node: each removes what the other has made.

Debian's package has no flannel, so what Go's flannel does is done here by hand: its state file,
then Debian's bridge and host-local with the conf in it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    GOLDEN,
    LEASES,
    STATE,
    SUBNET_ENV,
    add,
    address_of,
    call,
    conf_with,
    delete,
    keep_carrier,
    leases,
    must_add,
    ping,
    remains,
    rules,
    states,
    with_result,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome

GO = "/usr/lib/cni"
VERSIONS = ["0.3.1", "1.0.0"]

pytestmark = pytest.mark.skipif(not os.path.isdir(GO), reason=f"no {GO}")


@pytest.fixture(autouse=True)
def _subnet(node: Node) -> None:
    node.write_subnet_env(ipmasq="false")


def conf_of(version: str) -> dict[str, Any]:
    return conf_with(cniVersion=version)


def rendered(version: str) -> dict[str, Any]:
    """Return the delegate's conf as Go's flannel renders and keeps it."""
    return {**GOLDEN, "cniVersion": version, "ipMasq": True}


def by_go(node: Node, command: str, pod: str, conf: dict[str, Any]) -> Outcome:
    """Call Debian's bridge, which finds Debian's host-local."""
    return call(node, command, pod, conf=conf, plugin=f"{GO}/bridge", env={"CNI_PATH": GO})


def go_adds(node: Node, pod: str = "a", version: str = "1.0.0") -> Outcome:
    """ADD as Go's flannel does it."""
    node.add_pod(pod)
    conf = rendered(version)
    node.write(f"{STATE}/cid-{pod}", json.dumps(conf, sort_keys=True, separators=(",", ":")))
    done = by_go(node, "ADD", pod, conf)
    assert done.status == 0, done
    return done


def go_deletes(node: Node, pod: str = "a") -> None:
    """DEL as Go's flannel does it: from its state file, which goes first."""
    path = node.path(f"{STATE}/cid-{pod}")
    conf = json.loads(path.read_text())
    path.unlink()
    done = by_go(node, "DEL", pod, conf)
    assert done.status == 0, done


@pytest.mark.parametrize("version", VERSIONS)
def test_ours_removes_what_theirs_has_made(node: Node, version: str) -> None:
    go_adds(node, version=version)
    keep_carrier(node)
    assert ping(node, "a", "10.244.1.1")
    assert any("MASQUERADE" in rule for rule in rules(node))
    delete(node, conf=conf_of(version))
    assert remains(node) == {}


def test_ours_removes_what_theirs_has_made_without_subnet_env(node: Node) -> None:
    go_adds(node)
    node.path(SUBNET_ENV).unlink()
    delete(node, conf=conf_of("1.0.0"))
    assert remains(node).keys() <= {"neighbours"}


def test_ours_removes_what_theirs_has_made_without_their_state(node: Node) -> None:
    go_adds(node)
    node.path(f"{STATE}/cid-a").unlink()
    delete(node, conf=conf_of("1.0.0"))
    assert remains(node).keys() <= {"neighbours"}


def test_ours_removes_what_theirs_has_made_after_the_namespace_went(node: Node) -> None:
    """Go's own DEL leaves the masquerade rules here."""
    result = go_adds(node).result
    node.del_pod("a")
    delete(node, conf=with_result(conf_of("1.0.0"), result))
    assert remains(node).keys() <= {"neighbours", "links"}
    assert leases(node) == {}


def test_ours_removes_what_theirs_has_made_with_a_changed_conf(node: Node) -> None:
    """The upgrade brought another bridge name: the state says which one it was."""
    go_adds(node)
    delete(node, conf=conf_with(delegate={"bridge": "br7"}))
    assert remains(node).keys() <= {"neighbours"}


@pytest.mark.parametrize("version", VERSIONS)
def test_theirs_removes_what_ours_has_made(node: Node, version: str) -> None:
    must_add(node, conf=conf_of(version))
    assert ping(node, "a", "10.244.1.1")
    go_deletes(node)
    assert set(node.links()) == {"lo", "cni0"}
    assert leases(node) == {}
    assert not any("cid-a" in rule for rule in rules(node))


def test_theirs_reads_the_state_that_ours_has_written(node: Node) -> None:
    must_add(node, conf=conf_of("1.0.0"))
    assert states(node) == {"cid-a": rendered("1.0.0")}


@pytest.mark.parametrize("version", VERSIONS)
def test_theirs_checks_what_ours_has_made(node: Node, version: str) -> None:
    """Go's CHECK of a route without a gateway never succeeds, so there is none here."""
    if version == "0.3.1":
        version = "0.4.0"
    outcome = add(node, conf=conf_of(version))
    previous = outcome.result
    previous["routes"] = [route for route in previous["routes"] if "gw" in route]
    for interface in previous["interfaces"]:
        interface.pop("mtu", None)
    conf = with_result(rendered(version), previous)
    done = by_go(node, "CHECK", "a", conf)
    assert done.status == 0, done


def test_ours_checks_what_theirs_has_made(node: Node) -> None:
    result = go_adds(node).result
    conf = with_result(conf_of("1.0.0"), result)
    assert call(node, "CHECK", conf=conf).stdout == ""


def test_pods_of_both_reach_each_other(node: Node) -> None:
    theirs = address_of(go_adds(node, "a"))
    ours = address_of(add(node, "b", conf=conf_of("1.0.0")))
    later = address_of(go_adds(node, "c"))
    assert [theirs, ours, later] == ["10.244.1.2", "10.244.1.3", "10.244.1.4"]
    assert ping(node, "a", ours)
    assert ping(node, "b", theirs)
    assert ping(node, "b", later)


def test_bridge_of_theirs_keeps_its_mac_when_ours_joins(node: Node) -> None:
    before = go_adds(node, "a").result["interfaces"][0]["mac"]
    result = must_add(node, "b", conf=conf_of("1.0.0"))
    assert result["interfaces"][0]["mac"] == before == node.links()["cni0"]["address"]


def test_both_take_turns_in_one_pool(node: Node) -> None:
    """Each sees the other's leases, though only ours keeps an index of them."""
    must_add(node, "a", conf=conf_of("1.0.0"))
    go_adds(node, "b")
    go_deletes(node, "a")
    again = add(node, "a", conf=conf_of("1.0.0"))
    assert address_of(again) == "10.244.1.4"
    delete(node, "b", conf=conf_of("1.0.0"))
    assert leases(node) == {"10.244.1.4": "cid-a\r\neth0"}


def test_lease_that_theirs_gave_away_meanwhile_is_not_removed(node: Node) -> None:
    """Ours leased, theirs deleted and leased the address anew: it is another's now."""
    first = address_of(add(node, "a", conf=conf_of("1.0.0")))
    go_deletes(node, "a")
    node.path(f"{LEASES}/cbr0/last_reserved_ip.0").unlink()
    assert address_of(go_adds(node, "b")) == first
    delete(node, "a", conf=conf_of("1.0.0"))
    assert leases(node) == {first: "cid-b\r\neth0"}
    assert ping(node, "b", "10.244.1.1")


def test_gc_of_ours_frees_leases_and_rules_of_theirs(node: Node) -> None:
    go_adds(node, "a")
    go_adds(node, "b")
    listed = [{"containerID": "cid-b", "ifname": "eth0"}]
    done = call(node, "GC", conf=conf_with(**{"cni.dev/valid-attachments": listed}))
    assert done.status == 0, done
    assert leases(node) == {"10.244.1.3": "cid-b\r\neth0"}
    assert list(states(node)) == ["cid-b"]
    assert not any("cid-a" in rule for rule in rules(node))
    assert any("cid-b" in rule for rule in rules(node))
    assert ping(node, "b", "10.244.1.1")

"""ADD again: refused while the attachment lives, without disturbing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kernel.attachments import (
    DUAL_STACK,
    STATE,
    add,
    address_of,
    delete,
    leases,
    must_add,
    ping,
    remains,
    snapshot,
    until,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome


def test_second_add_is_the_specs_error(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    error = add(node).error
    assert error["code"] == 4
    assert error["msg"].startswith('container veth name ("eth0") peer provided ("veth')
    assert error["msg"].endswith('") already exists')
    assert "DEL" in error["details"]


def test_second_add_disturbs_nothing(node: Node) -> None:
    node.write_subnet_env(ipmasq="false", **DUAL_STACK)
    must_add(node)
    before = snapshot(node, "a")
    assert add(node).status == 1
    assert snapshot(node, "a") == before
    assert ping(node, "a", "10.244.1.1")


def test_second_add_with_another_subnet_disturbs_nothing(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    state = node.files(STATE)
    node.write_subnet_env(subnet="10.244.9.1/24")
    assert add(node).status == 1
    assert node.files(STATE) == state
    assert ping(node, "a", "10.244.1.1")


def test_second_add_leaves_the_state_that_it_did_not_find(node: Node) -> None:
    """Another ADD may have finished it just now, whose DEL needs it."""
    node.write_subnet_env()
    must_add(node)
    state = node.files(STATE)
    node.run(["rm", "-r", STATE])
    assert add(node).status == 1
    assert node.files(STATE) == state
    delete(node)
    assert remains(node) == {}


def test_del_after_the_refused_add_leaves_nothing(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    assert add(node).status == 1
    delete(node)
    assert remains(node) == {}


def test_interface_that_somebody_else_made_is_not_touched(node: Node) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    node.run(["ip", "-n", "a", "link", "add", "eth0", "type", "bridge"])
    before = snapshot(node, "a")
    error = add(node).error
    assert error["code"] == 4
    assert 'container veth name ("eth0")' in error["msg"]
    assert "choose another CNI_IFNAME" in error["details"]
    assert snapshot(node, "a") == before


def test_pod_that_was_made_anew_under_the_same_id_can_be_attached(node: Node) -> None:
    """Its namespace is gone, and the pair with it; lease and state are not.

    The kernel gives the number of a namespace that went to another one.  While one of that number
    is there, the first one is not provably gone, and the pod is refused as one that is attached:
    then the next try counts.
    """
    node.write_subnet_env()
    again = made_anew(node)
    for _ in range(30):
        if again.status == 0:
            break
        delete(node)
        again = made_anew(node)
    assert list(leases(node)) == [address_of(again)]
    delete(node)
    assert remains(node) == {}


def made_anew(node: Node) -> Outcome:
    """Attach a pod, make it anew without a DEL, and attach it again."""
    must_add(node)
    node.del_pod("a")
    assert until(lambda: set(node.links()) == {"lo", "cni0"})
    return add(node)

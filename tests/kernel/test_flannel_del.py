"""DEL of `flannel`: whatever has survived of an attachment is enough to remove the rest."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    LEASES,
    STATE,
    SUBNET_ENV,
    add,
    address_of,
    call,
    conf_with,
    delete,
    forge_plugin,
    keep_carrier,
    leases,
    must_add,
    ping,
    remains,
    rules,
    running,
    states,
    until,
    with_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Node, Outcome

NETNS = "/run/netns/a"


@pytest.fixture
def attached(node: Node) -> Outcome:
    """Attach pod `a`, masqueraded, with an entry for it in the bridge's neighbour table."""
    node.write_subnet_env(ipmasq="false")
    outcome = add(node)
    keep_carrier(node)
    assert ping(node, "a", "10.244.1.1")
    assert set(remains(node)) == {"links", "neighbours", "leases", "states", "rules"}
    return outcome


def lose_state(node: Node) -> None:
    shutil.rmtree(node.path(STATE))


def empty_state(node: Node) -> None:
    node.write(f"{STATE}/cid-a", "")


def break_state(node: Node) -> None:
    node.write(f"{STATE}/cid-a", '{"cniVersion":"1.1')


def lose_leases(node: Node) -> None:
    shutil.rmtree(node.path(LEASES))


def lose_index(node: Node) -> None:
    """Files beside the leases are a cache of them."""
    for path in node.path(LEASES).rglob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def lose_subnet_env(node: Node) -> None:
    node.path(SUBNET_ENV).unlink()


def lose_netns(node: Node) -> None:
    node.del_pod("a")


def lose_link(node: Node) -> None:
    node.run(["ip", "-n", "a", "link", "del", "eth0"])


def lose_bridge(node: Node) -> None:
    node.run(["ip", "link", "del", "cni0"])


def keep_all(node: Node) -> None:
    del node


LOSSES: list[Callable[[Node], None]] = [
    keep_all,
    lose_state,
    empty_state,
    break_state,
    lose_leases,
    lose_index,
    lose_subnet_env,
    lose_netns,
    lose_link,
    lose_bridge,
]


def name_of(loss: Callable[[Node], None]) -> str:
    return loss.__name__


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_del_without_prev_result_leaves_nothing(
    node: Node, attached: Outcome, loss: Callable[[Node], None]
) -> None:
    del attached
    loss(node)
    delete(node)
    assert remains(node) == {}


@pytest.mark.parametrize("loss", LOSSES, ids=name_of)
def test_del_with_prev_result_leaves_nothing(
    node: Node, attached: Outcome, loss: Callable[[Node], None]
) -> None:
    loss(node)
    delete(node, conf=with_result(CONF, attached.result))
    assert remains(node) == {}


@pytest.mark.parametrize(
    "losses",
    [
        (lose_state, lose_subnet_env),
        (lose_state, lose_netns),
        (lose_state, lose_leases),
        (lose_subnet_env, lose_leases),
        (lose_state, lose_subnet_env, lose_netns),
        (empty_state, lose_subnet_env, lose_leases),
        (lose_state, lose_subnet_env, lose_link),
    ],
    ids=lambda losses: "+".join(map(name_of, losses)),
)
def test_del_from_what_is_left_after_several_losses(
    node: Node, attached: Outcome, losses: tuple[Callable[[Node], None], ...]
) -> None:
    del attached
    for loss in losses:
        loss(node)
    delete(node)
    assert remains(node) == {}


def test_del_when_only_the_conf_is_left(node: Node, attached: Outcome) -> None:
    """The bridge may remember an address for a while: nothing tells any more whose it was."""
    del attached
    for loss in (lose_state, lose_subnet_env, lose_netns, lose_leases):
        loss(node)
    delete(node)
    assert remains(node).keys() <= {"neighbours"}


@pytest.mark.parametrize("netns", ["", None], ids=["empty", "unset"])
def test_del_without_a_namespace_finds_the_link(
    node: Node, attached: Outcome, netns: str | None
) -> None:
    """An empty CNI_NETNS says that the runtime does not know it; the pod may still be there."""
    del attached
    delete(node, netns=netns)
    assert remains(node) == {}
    assert "eth0" not in node.links("a")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_del_with_prev_result_of_every_version(node: Node, version: str) -> None:
    conf = conf_with(cniVersion=version)
    node.write_subnet_env()
    result = must_add(node, conf=conf)
    lose_state(node)
    delete(node, conf=with_result(conf, result))
    assert remains(node) == {}


def test_namespace_path_that_is_a_plain_file_counts_as_gone(node: Node, attached: Outcome) -> None:
    del attached
    node.del_pod("a")
    node.write(NETNS, "")
    delete(node)
    assert remains(node) == {}


def test_namespace_path_that_lost_its_mount_counts_as_gone(node: Node, attached: Outcome) -> None:
    """The namespace lives on in a process: the host's end of the pair has to go all the same."""
    del attached
    with running(node, "ip", "netns", "exec", "a", "sleep", "60"):
        assert until(lambda: node.run(["ip", "netns", "pids", "a"]).stdout)
        node.run(["umount", NETNS])
        assert any(name.startswith("veth") for name in node.links())
        delete(node)
        assert remains(node) == {}


@pytest.mark.parametrize("netns", ["/run/netns/none", "/run/none/none", "/dev/null", "/run"])
def test_del_of_a_namespace_path_that_leads_nowhere(
    node: Node, attached: Outcome, netns: str
) -> None:
    del attached
    delete(node, netns=netns)
    assert remains(node) == {}


def test_del_may_be_repeated(node: Node, attached: Outcome) -> None:
    del attached
    for _ in range(3):
        delete(node)
    assert remains(node) == {}


def test_del_of_a_pod_that_never_was(node: Node) -> None:
    node.write_subnet_env()
    delete(node, "never", netns="/run/netns/never")
    assert remains(node) == {}
    assert node.links().keys() == {"lo"}


def test_del_makes_no_directories(node: Node) -> None:
    node.write_subnet_env()
    delete(node, "never", netns="")
    assert list(node.path("/var/lib/cni").iterdir()) == []


def test_del_after_an_add_that_failed(node: Node) -> None:
    node.write_subnet_env()
    conf = conf_with(ipam={"rangeEnd": "10.244.1.0"})
    assert add(node, conf=conf).status == 1
    delete(node, conf=conf)
    assert remains(node) == {}


def test_del_leaves_the_other_pods_alone(node: Node, attached: Outcome) -> None:
    del attached
    must_add(node, "b")
    delete(node, "a")
    assert leases(node) == {"10.244.1.3": "cid-b\r\neth0"}
    assert list(states(node)) == ["cid-b"]
    assert any("cid-b" in rule for rule in rules(node))
    assert ping(node, "b", "10.244.1.1")


def test_del_leaves_a_strangers_interface_of_that_name_alone(node: Node) -> None:
    """The attachment is gone; somebody gave the pod another eth0, whose peer is no port."""
    node.write_subnet_env()
    must_add(node)
    node.run(["ip", "-n", "a", "link", "del", "eth0"])
    pair = ["foreign", "type", "veth", "peer", "name", "eth0", "netns", "a"]
    node.run(["ip", "link", "add", *pair])
    delete(node)
    assert "foreign" in node.links()
    assert "eth0" in node.links("a")


def test_del_leaves_a_strangers_host_veth_of_the_hashed_name_alone(node: Node) -> None:
    node.write_subnet_env()
    name = must_add(node)["interfaces"][1]["name"]
    node.run(["ip", "link", "del", name])
    node.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "elsewhere"])
    delete(node)
    assert name in node.links()


def test_del_of_an_attachment_whose_hashed_name_was_taken(node: Node) -> None:
    """A stranger's link of the name makes ADD pass to another one, and DEL finds that."""
    node.write_subnet_env()
    name = must_add(node)["interfaces"][1]["name"]
    delete(node)
    node.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "elsewhere"])
    other = must_add(node)["interfaces"][1]["name"]
    assert other != name
    delete(node)
    assert other not in node.links()
    assert name in node.links()


# --------------------------------------------------------------------------- what the past has left


def test_lease_of_the_old_format_goes_too(node: Node, attached: Outcome) -> None:
    """Older plugins wrote the container alone."""
    path = f"{LEASES}/cbr0/{address_of(attached)}"
    node.path(path).unlink()
    node.write(path, "cid-a")
    delete(node)
    assert remains(node) == {}


def test_lease_of_the_old_format_of_another_container_stays(node: Node, attached: Outcome) -> None:
    del attached
    node.write(f"{LEASES}/cbr0/10.244.1.9", "cid-b")
    delete(node)
    assert leases(node) == {"10.244.1.9": "cid-b"}


def test_index_that_says_something_else_than_the_leases(node: Node, attached: Outcome) -> None:
    """Go's plugin changed leases since: the files count, not what was noted of them."""
    address = address_of(attached)
    path = node.path(f"{LEASES}/cbr0")
    (path / address).rename(path / "10.244.1.200")
    delete(node)
    assert leases(node) == {}


def test_users_bridge_is_known_from_the_state(node: Node) -> None:
    """The conf has been changed since the ADD: what ADD wrote down counts."""
    node.write_subnet_env()
    conf = conf_with(delegate={"bridge": "br7"})
    must_add(node, conf=conf)
    delete(node, conf=CONF)
    assert list(node.links()) == ["lo", "br7"]
    assert leases(node) == {}


# ---------------------------------------------------------------------------------- DEL that failed


def test_delegates_failure_is_told_and_the_state_kept_for_the_retry(node: Node) -> None:
    """The reference plugin loses the state here, and with it link and address for good."""
    node.write_subnet_env()
    forge_plugin(node, "frail", FRAIL)
    conf = conf_with(delegate={"type": "frail"})
    must_add(node, conf=conf)
    before = node.files(STATE)
    node.write("/run/refuse", "")
    error = call(node, "DEL", conf=conf).error
    assert (error["code"], error["msg"], error["details"]) == (11, "come back", "later")
    assert node.files(STATE) == before
    node.path("/run/refuse").unlink()
    delete(node, conf=conf)
    assert node.files(STATE) == {}
    sent = json.loads(node.path("/run/sent").read_text())
    assert sent["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]


FRAIL = """
case $CNI_COMMAND in
ADD) cat >/dev/null; echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.9/24"}]}' ;;
DEL)
    cat >/run/sent
    if [ -e /run/refuse ]; then
        echo '{"code": 11, "msg": "come back", "details": "later"}'
        exit 1
    fi
    ;;
esac"""


def test_lease_that_cannot_be_removed_keeps_the_state_but_not_the_link(node: Node) -> None:
    node.write_subnet_env()
    must_add(node)
    directory = f"{LEASES}/cbr0"
    node.run(["mount", "--bind", directory, directory])
    node.run(["mount", "-o", "remount,bind,ro", directory])
    error = call(node, "DEL").error
    assert error["code"] == 5
    assert "read-only file system" in error["msg"]
    assert list(states(node)) == ["cid-a"]
    assert list(node.links()) == ["lo", "cni0"]
    node.run(["umount", directory])
    delete(node)
    assert remains(node) == {}


@pytest.mark.parametrize("text", ["not found", "no such file or directory"])
def test_failure_that_a_retry_can_cure_never_sounds_like_success(node: Node, text: str) -> None:
    """The runtime takes these words for "gone already", and never calls again."""
    node.write_subnet_env()
    must_add(node)
    node.run(["mount", "--bind", f"{LEASES}/cbr0", f"{LEASES}/cbr0"])
    node.run(["mount", "-o", "remount,bind,ro", f"{LEASES}/cbr0"])
    error: dict[str, Any] = call(node, "DEL").error
    assert text not in f"{error['msg']} {error.get('details')}"

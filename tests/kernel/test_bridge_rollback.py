"""An ADD that fails leaves nothing: made to fail at each of its steps, seen from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    call,
    delete,
    host_local,
    leases,
    make_conf,
    program,
    rules,
    set_sysctl,
    tampered,
    traces,
)
from tests.kernel.conftest import SYSTEM_PATH

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

FAKES = "/run/fakes"
ENV: dict[str, str | None] = {"PATH": f"{FAKES}:{SYSTEM_PATH}"}
ASKED: dict[str, str | None] = {"CNI_ARGS": "MAC=0a:11:22:33:44:55"}
EVERYTHING: dict[str, Any] = {
    "isDefaultGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "hairpinMode": True,
    "ipam": host_local(SUBNET, SUBNET6),
}
BREAK = 'echo "broken on purpose" >&2; exit 1'


def assert_nothing_is_left(node: Node, pod: str = "p1") -> None:
    assert traces(node) == []
    assert set(node.links(pod)) == {"lo"}
    assert set(node.links()) <= {"lo", "cni0"}


def assert_add_works_now(node: Node, conf: dict[str, Any]) -> None:
    attach(node, conf)
    node.pod_run("p1", ["ping", "-c2", "-i0.2", "-W5", "10.88.1.1"])


# ------------------------------------------------------------------------------- the kernel says no


def test_a_mac_that_is_seen_to_be_taken_when_the_link_is_there(node: Node) -> None:
    attach(node, make_conf(**EVERYTHING), 2, env=ASKED)
    before = traces(node)
    error = add(node, make_conf(**EVERYTHING), env=ASKED).error
    assert error["code"] == 103
    assert traces(node) == before
    assert set(node.links("p1")) == {"lo"}
    assert_add_works_now(node, make_conf(**EVERYTHING))


def test_an_mtu_that_the_kernel_does_not_take(node: Node) -> None:
    """An IPAM plugin of somebody's says only in its answer that there is IPv6."""
    fake_ipam(node, ["fd00:88::9/64"], "fd00:88::1")
    conf = make_conf(ipMasq=True, mtu=1000, ipam={"type": "fake"})
    error = add(node, conf, env=with_fakes(node)).error
    assert error["code"] == 7
    assert "invalid MTU 1000: IPv6 needs at least 1280" in error["msg"]
    assert_nothing_is_left(node)
    assert_add_works_now(node, make_conf(**EVERYTHING, mtu=1400))


def test_the_same_address_twice(node: Node) -> None:
    fake_ipam(node, ["10.88.1.9/24", "10.88.1.9/24"], "10.88.1.1")
    conf = make_conf(ipMasq=True, ipam={"type": "fake"})
    error = add(node, conf, env=with_fakes(node)).error
    assert (error["code"], "address 10.88.1.9 twice" in error["msg"]) == (105, True)
    assert_nothing_is_left(node)


def test_ipv6_switched_off_for_the_host_s_bridge(node: Node) -> None:
    node.run(["ip", "link", "add", "cni0", "type", "bridge"])
    node.run(["ip", "link", "add", "up0", "master", "cni0", "type", "veth", "peer", "name", "up1"])
    set_sysctl(node, "net/ipv6/conf/cni0/disable_ipv6", "1")
    error = add(node, make_conf(**EVERYTHING)).error
    assert error["code"] == 104
    assert "net/ipv6/conf/cni0/disable_ipv6 is 1" in error["msg"]
    assert traces(node) == []
    assert set(node.links("p1")) == {"lo"}


@pytest.mark.parametrize("ready", [False, True], ids=["first pod", "second pod"])
def test_each_request_to_the_kernel_in_turn(node: Node, *, ready: bool) -> None:
    """The n-th fails; making the bridge is tried again, so that some of them do no harm."""
    conf = make_conf(isDefaultGateway=True, ipMasq=True, ipam=host_local(SUBNET, SUBNET6))
    if ready:
        attach(node, conf, 99)
    before = traces(node)
    failed = 0
    for nth in range(1, 14):
        node.add_pod("p1")
        outcome = tampered(node, f"sendmsg:error=ENOMEM:when={nth}", conf)
        if outcome.status == 0:
            delete(node, conf)
        else:
            failed += 1
            assert outcome.error["code"] == 101, (nth, outcome)
            assert "annot allocate memory" in outcome.error["msg"], (nth, outcome)
        assert traces(node) == before, (nth, outcome)
        assert set(node.links("p1")) == {"lo"}, (nth, outcome)
        node.del_pod("p1")
        if not ready:
            node.run(["ip", "link", "del", "cni0"], check=False)
    assert failed >= 6


# ---------------------------------------------------------------------------------------- IPAM errs


def with_fakes(node: Node) -> dict[str, str | None]:
    return {**ENV, "CNI_PATH": f"{FAKES}:{node.cni_path}"}


def fake_ipam(node: Node, addresses: list[str], gateway: str, **keys: Any) -> None:
    """Make an IPAM plugin "fake" that answers so, and shows its lease as a file."""
    ips = [{"address": address, "gateway": gateway} for address in addresses]
    result = json.dumps({"cniVersion": "1.1.0", "ips": ips, **keys})
    lease = "/var/lib/cni/fake-lease"
    program(
        node,
        f"{FAKES}/fake",
        f"case $CNI_COMMAND in ADD) : > {lease}; echo '{result}';; DEL) rm -f {lease};; esac",
    )


BAD: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "no address": ([], "", {}),
    "a gateway that is none": (["10.88.1.9/24"], "nonsense", {}),
    "an address that is none": (["10.88.1.9"], "10.88.1.1", {}),
    "a gateway of the other family": (["10.88.1.9/24"], "fd00::1", {}),
    "a route that is none": (["10.88.1.9/24"], "10.88.1.1", {"routes": [{"dst": "nowhere"}]}),
    "a route of another family than its gateway": (
        ["10.88.1.9/24"],
        "10.88.1.1",
        {"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_ipam_plugin_that_answers_badly(node: Node, case: str) -> None:
    addresses, gateway, keys = BAD[case]
    fake_ipam(node, addresses, gateway, **keys)
    conf = make_conf(isDefaultGateway=True, ipMasq=True, ipam={"type": "fake"})
    error = add(node, conf, env=with_fakes(node)).error
    assert error["code"] == 105
    assert error["details"]
    assert_nothing_is_left(node)
    assert node.addresses().get("cni0", []) == []


GARBAGE = {
    "garbage": "echo garbage",
    "half a result": "echo '{\"ips\": ['",
    "an error without words": "exit 3",
    "words on stderr": BREAK,
    "killed": "kill -9 $$",
    "nothing": ":",
}


@pytest.mark.parametrize("case", GARBAGE)
def test_an_ipam_plugin_that_breaks_is_asked_to_clean_up(node: Node, case: str) -> None:
    lease = "/var/lib/cni/fake-lease"
    script = f"[ $CNI_COMMAND = DEL ] && rm {lease} && exit 0; : > {lease}; {GARBAGE[case]}"
    program(node, f"{FAKES}/fake", script)
    error = add(node, make_conf(ipam={"type": "fake"}), env=with_fakes(node)).error
    assert error["code"] == 105
    assert_nothing_is_left(node)


def test_an_error_of_the_ipam_plugin_keeps_its_code_and_words(node: Node) -> None:
    said = {"code": 42, "msg": "no such luck", "details": "ask later"}
    script = f"[ $CNI_COMMAND = DEL ] || {{ echo '{json.dumps(said)}'; exit 1; }}"
    program(node, f"{FAKES}/fake", script)
    error = add(node, make_conf(ipam={"type": "fake"}), env=with_fakes(node)).error
    assert {key: error[key] for key in said} == said


# ------------------------------------------------------------------------ the packet filter says no


@pytest.mark.parametrize("broken", ["iptables-restore", "ip6tables-restore", "nft"])
def test_a_packet_filter_program_that_fails(node: Node, broken: str) -> None:
    program(node, f"{FAKES}/{broken}", BREAK)
    conf = make_conf(**EVERYTHING, ipMasqBackend="iptables")
    error = add(node, conf, env=ENV).error
    assert error["code"] == 101
    assert "broken on purpose" in error["msg"]
    assert_nothing_is_left(node)
    assert_add_works_now(node, conf)


def test_nftables_masquerading_that_fails(node: Node) -> None:
    program(node, f"{FAKES}/nft", BREAK)
    conf = make_conf(ipMasq=True, ipMasqBackend="nftables")
    assert "broken on purpose" in add(node, conf, env=ENV).error["msg"]
    assert_nothing_is_left(node)


def test_a_failure_after_the_rules_takes_them_back_and_leaves_others(node: Node) -> None:
    attach(node, make_conf(**EVERYTHING), 2, env=ASKED)
    before = rules(node)
    assert add(node, make_conf(**EVERYTHING), env=ASKED).status == 1
    assert rules(node) == before
    node.pod_run("p2", ["ping", "-c2", "-i0.2", "-W5", "10.88.1.1"])


# ------------------------------------------------------------------------------ nothing to undo yet


def test_a_full_pool_leaves_no_link(node: Node) -> None:
    conf = make_conf(ipam=host_local("10.88.1.0/30"))
    attach(node, conf, 1)
    before = traces(node)
    assert add(node, conf, 2).error["code"] == 102
    assert traces(node) == before
    assert set(node.links("p2")) == {"lo"}


def test_a_namespace_that_does_not_exist_leaves_nothing(node: Node) -> None:
    error = call(node, "ADD", make_conf()).error
    assert error["code"] == 8
    assert set(node.links()) == {"lo"}
    assert leases(node) == []


def test_an_error_never_sounds_like_success_to_a_runtime(node: Node) -> None:
    words = "echo 'x: No such file or directory, not found' >&2"
    program(node, f"{FAKES}/iptables-restore", f"{words}; exit 1")
    error = add(node, make_conf(ipMasq=True, ipMasqBackend="iptables"), env=ENV).error
    text = json.dumps(error).lower()
    assert "not found" not in text
    assert "no such file or directory" not in text

"""Signals at any moment: SIGTERM rolls back, and after SIGKILL the next call finds its way."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    SUBNET,
    SUBNET6,
    add,
    attach,
    delete,
    eventually,
    host_local,
    make_conf,
    program,
    tampered,
    traces,
)
from tests.kernel.conftest import SYSTEM_PATH

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

FAKES = "/run/fakes"
STARTED, GO = "/run/started", "/run/go"
WAIT = f": > {STARTED}; until [ -e {GO} ]; do sleep 0.02; done"
CONF = make_conf(isDefaultGateway=True, ipam=host_local(SUBNET, SUBNET6))
RULES = {**CONF, "ipMasq": True, "ipMasqBackend": "iptables", "macspoofchk": True}


class Call:
    """A call of the bridge plugin that runs beside the test."""

    def __init__(self, node: Node, conf: dict[str, Any], command: str = "ADD") -> None:
        environ = node.environment(command, "c1", "eth0", "/run/netns/p1")
        environ |= {"PATH": f"{FAKES}:{SYSTEM_PATH}", "CNI_PATH": f"{FAKES}:{node.cni_path}"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = node.popen([node.program("bridge")], env=environ, **pipes)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(conf).encode())
        self.process.stdin.close()
        self.process.stdin = None

    def end(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the document on stdout."""
        stdout, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(stdout or "{}")


def interrupt(node: Node, conf: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
    """Send a signal to an ADD when its slow program has started; if it can, that goes on then."""
    node.add_pod("p1")
    running = Call(node, conf)
    eventually(node.path(STARTED).exists, "the slow program runs")
    running.process.send_signal(number)
    if number != signal.SIGKILL:
        node.write(GO, "")
    return running.end()


def slow(node: Node, name: str, rest: str) -> None:
    """Put a program first on PATH that waits once, until it may go on."""
    program(node, f"{FAKES}/{name}", f"[ -e {STARTED} ] || {{ {WAIT}; }}\n{rest}")


def fakes_end(node: Node) -> None:
    """Wait until none of the slow programs runs any more."""
    eventually(lambda: not any(FAKES in line for line in node.processes()), "they end")


# ------------------------------------------------------------------------------------------ SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["iptables-restore", "ip6tables-restore", "nft"])
def test_a_signal_while_rules_are_written_rolls_back(node: Node, name: str, number: int) -> None:
    slow(node, name, f'exec /usr/sbin/{name} "$@"')
    status, error = interrupt(node, RULES, number)
    assert status == 1
    assert error["code"] == 11
    assert traces(node) == []
    assert set(node.links("p1")) == {"lo"}


def test_no_program_goes_on_after_the_roll_back(node: Node) -> None:
    slow(node, "iptables-restore", 'exec /usr/sbin/iptables-restore "$@"')
    interrupt(node, RULES, signal.SIGTERM)
    fakes_end(node)
    assert traces(node) == []


def test_a_signal_while_ipam_works_releases_its_lease(node: Node) -> None:
    lease = "/var/lib/cni/fake-lease"
    program(
        node,
        f"{FAKES}/fake",
        f"[ $CNI_COMMAND = DEL ] && rm -f {lease} && exit 0; : > {lease}; {WAIT}",
    )
    status, error = interrupt(node, make_conf(ipam={"type": "fake"}), signal.SIGTERM)
    assert (status, error["code"]) == (1, 11)
    assert traces(node) == []


def test_a_signal_during_a_roll_back_does_not_stop_it(node: Node) -> None:
    """IPAM gives an address that is none; its DEL is slow, and the signal comes then."""
    lease = "/var/lib/cni/fake-lease"
    program(
        node,
        f"{FAKES}/fake",
        f'[ $CNI_COMMAND = DEL ] || {{ : > {lease}; echo \'{{"ips": [{{"address": "x"}}]}}\';'
        f" exit 0; }}\n{WAIT}; rm -f {lease}",
    )
    status, error = interrupt(node, make_conf(ipam={"type": "fake"}), signal.SIGTERM)
    assert status == 1
    assert error["msg"]
    assert traces(node) == []


def test_a_second_signal_does_not_stop_the_roll_back(node: Node) -> None:
    slow(node, "iptables-restore", 'exec /usr/sbin/iptables-restore "$@"')
    node.add_pod("p1")
    running = Call(node, RULES)
    eventually(node.path(STARTED).exists, "the slow program runs")
    for _ in range(20):
        running.process.send_signal(signal.SIGTERM)
    node.write(GO, "")
    assert running.end()[0] == 1
    assert traces(node) == []


@pytest.mark.parametrize("syscall", ["sendmsg", "setns"])
def test_sigterm_at_any_request_leaves_all_or_nothing(node: Node, syscall: str) -> None:
    conf = make_conf(ipMasq=True, ipam=host_local(SUBNET, SUBNET6))
    for nth in range(1, 40):
        node.add_pod("p1")
        outcome = tampered(node, f"{syscall}:signal=SIGTERM:when={nth}", conf)
        if outcome.status == 0:
            assert outcome.result["ips"], nth
            delete(node, conf)
        else:
            assert outcome.error["code"] == 11, (nth, outcome)
        assert traces(node) == [], (nth, outcome)
        assert set(node.links("p1")) == {"lo"}, (nth, outcome)
        node.del_pod("p1")
        node.run(["ip", "link", "del", "cni0"], check=False)
        if outcome.status == 0:
            break


def test_sigterm_when_all_is_done_but_the_result_is_not_told(node: Node) -> None:
    """The sockets are closed last.  Before the first request there is nothing to roll back yet."""

    def struck(nth: int) -> int:
        node.add_pod("p1")
        outcome = tampered(node, f"close:signal=SIGTERM:when={nth}", CONF)
        if outcome.status == 0:
            delete(node, CONF)
        assert traces(node) == [], (nth, outcome)
        assert set(node.links("p1")) == {"lo"}, (nth, outcome)
        node.del_pod("p1")
        return int(outcome.error["code"]) if outcome.status == 1 else outcome.status

    # an interpreter that reads its modules closes hundreds of files before it hears signals
    begin = next(nth for nth in range(1, 2000, 10) if struck(nth) != -signal.SIGTERM)
    codes: list[int] = []
    while codes[-2:] != [0, 0]:
        codes.append(struck(max(1, begin - 9) + len(codes)))
        assert len(codes) < 900
    assert 11 in codes


# ------------------------------------------------------------------------------------------ SIGKILL

# System calls around which state changes: requests, namespaces, leases, programs.
MOMENTS = ["sendmsg", "setns", "link,linkat,rename,renameat", "flock", "unlink,unlinkat"]


@pytest.mark.parametrize("syscalls", MOMENTS)
@pytest.mark.parametrize("again", ["ADD", "DEL"])
def test_after_a_kill_of_add_the_next_call_succeeds(node: Node, syscalls: str, again: str) -> None:
    conf = make_conf(isDefaultGateway=True, ipMasq=True)
    for nth in range(1, 40):
        node.add_pod("p1")
        killed = tampered(node, f"{syscalls}:signal=SIGKILL:when={nth}", conf)
        if killed.status == 0:
            delete(node, conf)
            break
        if again == "ADD":
            attach(node, conf)
            jumps = [trace for trace in traces(node) if trace.startswith("rule -A POSTROUTING")]
            assert len(jumps) == 1, (nth, jumps)
            node.pod_run("p1", ["ping", "-c2", "-i0.2", "-W5", "10.88.1.1"])
        delete(node, conf)
        assert traces(node) == [], nth
        assert set(node.links("p1")) == {"lo"}, nth
        node.del_pod("p1")


@pytest.mark.parametrize("syscalls", ["sendmsg", "unlink,unlinkat"])
def test_after_a_kill_of_del_the_next_del_ends_it(node: Node, syscalls: str) -> None:
    conf = make_conf(ipMasq=True)
    for nth in range(1, 40):
        node.add_pod("p1")
        result = attach(node, conf)
        named = {**conf, "prevResult": result}
        killed = tampered(node, f"{syscalls}:signal=SIGKILL:when={nth}", named, command="DEL")
        delete(node, named)
        assert traces(node) == [], nth
        node.del_pod("p1")
        if killed.status == 0:
            break


def test_a_kill_while_a_program_runs_does_not_hinder_the_next_add(node: Node) -> None:
    slow(node, "iptables-restore", 'exec /usr/sbin/iptables-restore "$@"')
    status, _ = interrupt(node, RULES, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert add(node, RULES).status == 0
    node.write(GO, "")
    fakes_end(node)  # the orphan of the killed one
    delete(node, RULES)
    assert traces(node) == []

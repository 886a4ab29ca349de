"""ADD that is killed or interrupted: what it leaves is in nobody's way, or nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    CONF,
    LEASES,
    SUBNET_ENV,
    add,
    conf_with,
    delete,
    forge_plugin,
    keep_carrier,
    leases,
    locked,
    lockers,
    must_add,
    ping,
    remains,
    running,
    until,
)

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from tests.kernel.conftest import Node

Process = subprocess.Popen[bytes]


def adding(
    node: Node, *prefix: str, conf: dict[str, Any] = CONF
) -> contextlib.AbstractContextManager[Process]:
    """Run an ADD for pod `a`; `prefix` is a program that runs it."""
    environ = node.environment("ADD", "cid-a", "eth0", "/run/netns/a")
    node.write("/run/conf.json", json.dumps(conf))
    command = f"exec {node.program('flannel')} </run/conf.json"
    return running(node, *prefix, "sh", "-c", command, env=environ)


# --------------------------------------------------------------------------------------- by SIGKILL

# The system calls of an ADD that change something, and where in the row of them to strike. A call
# that is struck does not happen; what was sent before `recvmsg` has happened.
STRIKES = [
    ("mkdir", 1),
    ("rename", 1),
    ("flock", 1),
    ("linkat", 1),
    ("pwrite64", 1),
    ("symlink", 1),
    ("wait4", 1),
    ("setns", 1),
    ("setns", 2),
    *(("sendmsg", number) for number in range(3, 15)),
    *(("recvmsg", number) for number in range(6, 22, 4)),
]
SOME_STRIKES = [("linkat", 1), ("wait4", 1), ("setns", 1), ("sendmsg", 13)]


def strike(node: Node, call_name: str, number: int) -> None:
    """Kill an ADD as it enters a system call for the n-th time."""
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    inject = f"inject={call_name}:signal=KILL:when={number}"
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call_name}", "-e", inject]
    with adding(node, *trace) as process:
        process.communicate()
    if process.returncode == 0:
        delete(node)  # it came to its end with fewer such calls


@pytest.mark.parametrize(("call_name", "number"), STRIKES)
def test_add_after_a_killed_add_works_and_its_del_leaves_nothing(
    node: Node, call_name: str, number: int
) -> None:
    strike(node, call_name, number)
    must_add(node)
    assert len(leases(node)) == 1
    assert ping(node, "a", "10.244.1.1")
    keep_carrier(node)
    delete(node)
    assert remains(node) == {}


@pytest.mark.parametrize(("call_name", "number"), SOME_STRIKES)
def test_del_after_a_killed_add_leaves_nothing(node: Node, call_name: str, number: int) -> None:
    strike(node, call_name, number)
    delete(node)
    assert remains(node) == {}


def test_strikes_reach_into_the_add(node: Node) -> None:
    """A strike that finds no such call proves nothing: most must have found theirs."""
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    names = sorted({name for name, _ in STRIKES})
    trace = ["strace", "-f", "-qq", "-o", "/run/trace", "-e", f"trace={','.join(names)}"]
    with adding(node, *trace) as process:
        process.communicate()
    assert process.returncode == 0
    lines = node.path("/run/trace").read_text().splitlines()
    counts = {name: sum(f" {name}(" in line for line in lines) for name in names}
    missed = [(name, number) for name, number in STRIKES if counts[name] < number]
    assert len(missed) <= 2, (missed, counts)


def test_adds_killed_at_any_time_are_in_nobodys_way(node: Node) -> None:
    node.write_subnet_env(ipmasq="false")
    node.add_pod("a")
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for count in range(20):
        with adding(node) as process:
            time.sleep(chance.uniform(0.0, 0.12))
            process.kill()
            process.communicate()
        outcome = add(node)
        if outcome.status != 0:  # killed with nothing left to do but to say so
            assert "DEL comes before a second ADD" in outcome.error["details"], (seed, count)
            delete(node)
            outcome = add(node)
        assert outcome.status == 0, (seed, count, outcome)
        assert len(leases(node)) == 1, (seed, count)
        if count == 0:
            keep_carrier(node)
        delete(node)
        assert remains(node) == {}, (seed, count)


# -------------------------------------------------------------------------------------- by a signal

# A plugin that hangs in ADD; its DEL, and how it was ended, are noted.
HANGS = """
cat >/dev/null
[ $CNI_COMMAND != ADD ] || trap 'echo ended >>/run/called; kill $!; exit 1' TERM
echo $CNI_COMMAND >>/run/called
[ $CNI_COMMAND = ADD ] || exit 0
sleep 60 &
wait"""


def wait_for_file(node: Node) -> dict[str, Any]:
    """Make an ADD wait for subnet.env."""
    node.path(SUBNET_ENV).unlink()
    return conf_with(subnetFileWait=30)


def wait_for_delegate(node: Node) -> dict[str, Any]:
    """Make an ADD wait for a foreign delegate."""
    forge_plugin(node, "slow", HANGS)
    return conf_with(delegate={"type": "slow"})


def wait_for_ipam(node: Node) -> dict[str, Any]:
    """Make an ADD wait for a foreign IPAM plugin."""
    forge_plugin(node, "slow", HANGS)
    return conf_with(ipam={"type": "slow"})


WAITS: list[Callable[[Node], dict[str, Any]]] = [wait_for_file, wait_for_delegate, wait_for_ipam]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def is_waiting(node: Node, process: Process, conf: dict[str, Any]) -> bool:
    """Whether the call has prepared for signals and sleeps in the place meant."""
    if "subnetFileWait" not in conf and not node.path("/run/called").exists():
        return False
    text = node.path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    caught = int(fields["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
    return bool(caught) and fields["State"].strip().startswith("S")


def interrupted(process: Process, signum: int) -> dict[str, Any]:
    """Send a signal; the call must answer with one error and exit with 1."""
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert b"Traceback" not in errors
    error = json.loads(output)
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda one: one.name)
@pytest.mark.parametrize("wait", WAITS, ids=lambda one: one.__name__)
def test_interrupted_add_says_so_and_leaves_nothing(
    node: Node, wait: Callable[[Node], dict[str, Any]], signum: signal.Signals
) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    conf = wait(node)
    with adding(node, conf=conf) as process:
        assert until(lambda: is_waiting(node, process, conf))
        error = interrupted(process, signum)
    assert error["code"] == 11
    assert f"interrupted by signal {signum.value}" in error["msg"]
    assert remains(node) == {}


@pytest.mark.parametrize("wait", [wait_for_delegate, wait_for_ipam], ids=lambda one: one.__name__)
def test_interrupted_add_ends_the_plugin_it_waits_for_and_deletes(
    node: Node, wait: Callable[[Node], dict[str, Any]]
) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    conf = wait(node)
    with adding(node, conf=conf) as process:
        assert until(lambda: is_waiting(node, process, conf))
        interrupted(process, signal.SIGTERM)
    called = node.path("/run/called").read_text().split()
    assert called[:2] == ["ADD", "ended"]
    assert "DEL" in called[2:]


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda one: one.name)
def test_add_that_waits_for_the_lock_can_be_interrupted(node: Node, signum: signal.Signals) -> None:
    """Somebody keeps the lock, so not even the roll-back can have it: nothing was leased yet."""
    node.write_subnet_env()
    node.add_pod("a")
    lock = f"{LEASES}/cbr0/lock"
    conf = conf_with(ipam={"lockTimeout": 30})
    with locked(node, lock), adding(node, conf=conf) as process:
        assert until(lambda: lockers(node, lock) == 2)
        error = interrupted(process, signum)
    assert error["code"] == 11
    assert remains(node) == {}


# The same, and its DEL waits until it may go on.
SLOW_DEL = """
cat >/dev/null
[ $CNI_COMMAND != ADD ] || trap 'kill $!; exit 1' TERM
echo $CNI_COMMAND >>/run/called
if [ $CNI_COMMAND = ADD ]; then
    sleep 60 &
    wait
fi
until [ -e /run/go ]; do sleep 0.02; done
echo deleted >>/run/called"""


def test_signals_after_the_first_do_not_stop_the_roll_back(node: Node) -> None:
    node.write_subnet_env()
    node.add_pod("a")
    forge_plugin(node, "slow", SLOW_DEL)
    conf = conf_with(ipam={"type": "slow"})
    with adding(node, conf=conf) as process:
        assert until(lambda: is_waiting(node, process, conf))
        process.send_signal(signal.SIGTERM)
        assert until(lambda: "DEL" in node.path("/run/called").read_text())
        for signum in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(signum)
        node.write("/run/go", "")
        output, _ = process.communicate(timeout=60)
    assert json.loads(output)["code"] == 11
    assert node.path("/run/called").read_text().split()[-1] == "deleted"
    assert remains(node) == {}


def test_complete_add_ignores_a_late_signal(node: Node) -> None:
    """Either the caller gets a result and everything is there, or an error and nothing is."""
    node.write_subnet_env()
    node.add_pod("a")
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for count in range(12):
        with adding(node) as process:
            time.sleep(chance.uniform(0.03, 0.12))
            process.terminate()
            output, _ = process.communicate(timeout=60)
        if process.returncode == 0:
            assert json.loads(output)["ips"], (seed, count)
            assert len(leases(node)) == 1, (seed, count)
            delete(node)
        elif process.returncode == 1:
            assert json.loads(output)["code"] == 11, (seed, count, output)
        else:  # before the handler was there the signal ends the process, as it does any other
            assert process.returncode == -signal.SIGTERM, (seed, count)
        assert remains(node).keys() <= {"neighbours"}, (seed, count)

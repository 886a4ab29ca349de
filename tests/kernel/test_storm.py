"""Many at once: a node that starts all its pods, on two networks, while others go."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import (
    MARKS,
    attach,
    call,
    check,
    delete,
    host_local,
    leases,
    make_conf,
    rules,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Node, Outcome

pytestmark = [*MARKS, pytest.mark.timeout(600)]

RED = make_conf(
    name="red",
    bridge="red0",
    isDefaultGateway=True,
    ipam=host_local("10.61.0.0/24", "fd00:61::/64"),
)
BLUE = make_conf(
    name="blue",
    bridge="blue0",
    isDefaultGateway=True,
    portIsolation=True,
    ipam=host_local("10.62.0.0/24"),
)


def at_once(work: Callable[[int], Any], numbers: range, workers: int = 32) -> list[Any]:
    """Do the work for each number, as many at once as there are workers."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, numbers))


def conf_of(number: int) -> dict[str, Any]:
    return RED if number % 2 else BLUE


def make_pods(node: Node, numbers: range) -> None:
    """Make the pods' namespaces, in one process."""
    commands = (f"ip netns add p{n}; ip -n p{n} link set lo up" for n in numbers)
    node.run(["sh", "-c", "; ".join(commands)])


def assert_nothing_is_left(node: Node, numbers: range) -> None:
    assert traces(node) == []
    assert (leases(node, "red"), leases(node, "blue")) == ([], [])
    for pod in (numbers[0], numbers[-1]):
        assert set(node.links(f"p{pod}")) == {"lo"}


def test_64_pods_on_two_networks(node: Node) -> None:
    """ADD, CHECK and DEL of each, interleaved: no error, no address twice, nothing left."""
    numbers = range(1, 65)
    make_pods(node, numbers)
    results: dict[int, dict[str, Any]] = {}

    def live(number: int) -> list[Outcome]:
        conf = conf_of(number)
        added = call(node, "ADD", conf, number)
        if added.status:
            return [added]
        results[number] = added.result
        checked = check(node, conf, results[number], number)
        if number % 4 < 2:  # half of the pods go while others come
            return [checked, call(node, "DEL", conf, number)]
        return [checked]

    outcomes = [outcome for several in at_once(live, numbers, 64) for outcome in several]
    assert [outcome for outcome in outcomes if outcome.status] == []
    living = [n for n in numbers if n % 4 >= 2]
    addresses = Counter(ip["address"] for n in living for ip in results[n]["ips"])
    assert max(addresses.values()) == 1, addresses
    assert len(leases(node, "red")) == 2 * len([n for n in living if n % 2])
    assert len(leases(node, "blue")) == len([n for n in living if n % 2 == 0])
    for number in living[:2]:
        gateway = results[number]["ips"][0]["gateway"]
        node.pod_run(f"p{number}", ["ping", "-c2", "-i0.2", "-W5", gateway])
    for outcome in at_once(lambda n: call(node, "DEL", conf_of(n), n), numbers, 64):
        assert outcome.status == 0, outcome
    assert_nothing_is_left(node, numbers)


def test_addresses_are_given_once_while_all_pods_live(node: Node) -> None:
    numbers = range(1, 33)
    make_pods(node, numbers)
    results = at_once(lambda n: call(node, "ADD", RED, n).result, numbers)
    addresses = [ip["address"] for result in results for ip in result["ips"]]
    assert len(set(addresses)) == len(addresses) == 64
    macs = [result["interfaces"][2]["mac"] for result in results]
    assert len(set(macs)) == len(macs)


@pytest.mark.parametrize("attempt", range(5))
def test_twelve_first_pods_see_one_bridge_mac(node: Node, attempt: int) -> None:
    del attempt
    numbers = range(1, 13)
    make_pods(node, numbers)
    results = at_once(lambda n: call(node, "ADD", RED, n).result, numbers, 12)
    assert len({result["interfaces"][0]["mac"] for result in results}) == 1
    assert node.links()["red0"]["address"] == results[0]["interfaces"][0]["mac"]
    assert sorted(node.addresses()["red0"]) == ["10.61.0.1/24", "fd00:61::1/64"]


def test_masquerading_of_many_at_once(node: Node) -> None:
    conf = {**RED, "ipMasq": True}
    numbers = range(1, 17)
    make_pods(node, numbers)
    for outcome in at_once(lambda n: call(node, "ADD", conf, n), numbers, 16):
        assert outcome.status == 0, outcome
    jumps = [rule for rule in rules(node) if rule.startswith("-A POSTROUTING")]
    assert len(jumps) == 2 * len(numbers)
    for outcome in at_once(lambda n: call(node, "DEL", conf, n), numbers, 16):
        assert outcome.status == 0, outcome
    assert_nothing_is_left(node, numbers)


def test_a_bridge_deleted_in_the_middle_is_made_again(node: Node) -> None:
    """Whoever loses the bridge gets a refusal and leaves nothing; the next ADD makes it again."""
    numbers = range(1, 25)
    make_pods(node, numbers)
    done = threading.Event()

    def destroy() -> None:
        while not done.wait(0.15):
            node.run(["ip", "link", "del", "red0"], check=False)

    vandal = threading.Thread(target=destroy)
    vandal.start()
    try:
        outcomes = at_once(lambda n: call(node, "ADD", RED, n), numbers, 8)
    finally:
        done.set()
        vandal.join()
    refused = [n for n, outcome in zip(numbers, outcomes, strict=True) if outcome.status]
    assert {outcomes[n - 1].error["code"] for n in refused} <= {101}
    assert len(leases(node, "red")) == 2 * (len(numbers) - len(refused))
    for n in refused:
        assert set(node.links(f"p{n}")) == {"lo"}
    node.run(["ip", "link", "del", "red0"], check=False)
    attach(node, RED, 99)
    node.pod_run("p99", ["ping", "-c2", "-i0.2", "-W5", "10.61.0.1"])
    for n in (*numbers, 99):
        delete(node, RED, n)
    assert_nothing_is_left(node, numbers)


def test_the_same_attachment_at_once_is_made_once_and_keeps_its_lease(node: Node) -> None:
    """No runtime may do so; if one does, the one that comes first must not lose its address."""
    conf = {**RED, "ipMasq": True}
    for _ in range(6):
        make_pods(node, range(1, 2))
        outcomes = at_once(lambda _: call(node, "ADD", conf, 1), range(3), 3)
        (made,) = [outcome for outcome in outcomes if outcome.status == 0]
        assert {outcome.error["code"] for outcome in outcomes if outcome.status} == {4}
        outcome = check(node, conf, made.result, 1)
        assert outcome.status == 0, outcome
        delete(node, conf)
        assert_nothing_is_left(node, range(1, 2))
        node.del_pod("p1")

"""What one ADD asks of the kernel, counted by strace(1): times would prove nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.kernel.attaching import MARKS, SUBNET, SUBNET6, attach, host_local, make_conf

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

pytestmark = MARKS

CONF = make_conf(isDefaultGateway=True, mtu=1450, ipam=host_local(SUBNET, SUBNET6))
TRACE = "/run/trace"

# linux/rtnetlink.h, linux/netlink.h; strace knows no names for sockets of another namespace
KINDS = ("LINK", "ADDR", "ROUTE", "NEIGH")
NUMBERS = {
    f"RTM_{verb}{kind}": 16 + 4 * k + v
    for k, kind in enumerate(KINDS)
    for v, verb in enumerate(("NEW", "DEL", "GET", "SET"))
}
FLAGS = {"NLM_F_REQUEST": 1, "NLM_F_ACK": 4, "NLM_F_DUMP": 0x300, "NLM_F_REPLACE": 0x100}
FLAGS |= {"NLM_F_EXCL": 0x200, "NLM_F_CREATE": 0x400, "NLM_F_APPEND": 0x800}
DUMP = 0x300


class Request(NamedTuple):
    """One netlink message: its type, its flags, and the text of it as strace shows it."""

    type: int
    flags: int
    text: str

    @property
    def is_dump(self) -> bool:
        return self.type % 4 == NUMBERS["RTM_GETLINK"] % 4 and self.flags & DUMP == DUMP


class Trace:
    """The system calls of one call of the plugin."""

    def __init__(self, node: Node, conf: dict[str, Any], command: str, pod: int) -> None:
        argv = ["strace", "-f", "-v", "-s", "4096", "-o", TRACE]
        argv += ["-e", "trace=sendmsg,sendto,execve,clone,vfork,fork,clone3,setns,socket"]
        environ = node.environment(command, f"c{pod}", "eth0", f"/run/netns/p{pod}")
        node.run([*argv, node.program("bridge")], json.dumps(conf), environ)
        self.lines = node.path(TRACE).read_text().splitlines()
        self.sends = [line for line in self.lines if re.search(r"\bsend(msg|to)\(", line)]
        self.requests = [request for line in self.sends for request in requests(line)]

    @property
    def link_dumps(self) -> list[Request]:
        return [r for r in self.requests if r.is_dump and r.type == NUMBERS["RTM_GETLINK"]]

    def count(self, *calls: str) -> int:
        return sum(bool(re.search(rf"\b({'|'.join(calls)})\(", line)) for line in self.lines)


def requests(line: str) -> list[Request]:
    """Return the messages of one send."""
    found = []
    for part in re.split(r"(?=\{nlmsg_len=)", line)[1:]:
        match = re.search(r"nlmsg_type=(\w+)[^,]*, nlmsg_flags=([^,]+)", part)
        assert match is not None, part
        names = match[2].split("|")
        flags = sum(FLAGS[name] if name in FLAGS else int(name, 16) for name in names)
        number = NUMBERS[match[1]] if match[1] in NUMBERS else int(match[1], 16)
        found.append(Request(number, flags, part))
    return found


@pytest.fixture
def second(node: Node) -> Trace:
    """Trace the ADD of a second pod: the normal path."""
    attach(node, CONF, 1)
    node.add_pod("p2")
    return Trace(node, CONF, "ADD", 2)


def test_no_links_are_dumped(second: Trace) -> None:
    assert second.link_dumps == []


def test_the_one_dump_is_of_the_bridge_s_own_addresses(second: Trace) -> None:
    dumps = [request for request in second.requests if request.is_dump]
    assert [request.type for request in dumps] == [NUMBERS["RTM_GETADDR"]]
    assert "ifa_index=0" not in dumps[0].text


def test_an_add_sends_at_most_ten_times(second: Trace) -> None:
    assert len(second.sends) <= 10


def test_the_pair_is_made_by_one_message(second: Trace) -> None:
    made = [r for r in second.requests if r.type == 16 and r.flags & FLAGS["NLM_F_CREATE"]]
    (message,) = made
    for word in ("IFLA_ADDRESS", "IFLA_MTU", "IFLA_LINKINFO"):
        assert word in message.text, message


def test_its_alias_is_sent_with_it_and_makes_it_a_port(second: Trace) -> None:
    """A port without an alias would be one that Go's plugin has made."""
    (send,) = [line for line in second.sends if "IFLA_LINKINFO" in line and "NLM_F_CREATE" in line]
    making, marking = requests(send)
    for word in ("IFLA_MASTER", "IFF_UP"):
        assert word not in making.text
        assert word in marking.text
    assert "flannel:net:c2:eth0 (adding)" in marking.text


def test_addresses_link_up_and_routes_are_one_batch(second: Trace) -> None:
    batches = [[request.type for request in requests(line)] for line in second.sends]
    address, link, route = (NUMBERS[f"RTM_{name}"] for name in ("NEWADDR", "SETLINK", "NEWROUTE"))
    assert [address, address, link, route, route] in batches


def test_no_program_is_run(second: Trace) -> None:
    assert second.count("clone", "vfork", "fork", "clone3") == 0


def test_two_sockets_are_opened_and_no_namespace_is_entered_more_than_needed(second: Trace) -> None:
    assert second.count("socket") == 2
    assert second.count("setns") == 4  # for the pod's socket and for its switches, there and back


def test_the_first_pod_costs_a_few_requests_more(node: Node) -> None:
    node.add_pod("p1")
    trace = Trace(node, CONF, "ADD", 1)
    assert len(trace.sends) <= 21
    assert len(trace.link_dumps) == 1  # no index: somebody may have removed it, and pods live


def test_a_del_dumps_no_links(node: Node) -> None:
    attach(node, CONF, 1)
    attach(node, CONF, 2)
    trace = Trace(node, CONF, "DEL", 2)
    assert trace.link_dumps == []


def test_a_del_has_one_child_that_runs_no_program(node: Node) -> None:
    attach(node, CONF, 1)
    trace = Trace(node, CONF, "DEL", 1)
    assert trace.count("clone", "vfork", "fork", "clone3") == 1
    executed = {
        line.split('execve("')[1].split('"')[0].rsplit("/", 1)[-1]
        for line in trace.lines
        if "execve(" in line
    }
    assert executed <= {"bridge", "flannel", "ld.so"}  # the start: by its name, then by its path


def test_the_cost_does_not_grow_with_the_ports(node: Node) -> None:
    counts = []
    for pod in (1, 2, 12):
        for number in range(max(1, pod - 8), pod):
            attach(node, CONF, number) if not node.path(f"/run/netns/p{number}").exists() else None
        node.add_pod(f"p{pod}")
        counts.append(len(Trace(node, CONF, "ADD", pod).requests))
    assert counts[1] == counts[2] <= counts[0]

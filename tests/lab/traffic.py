"""Who reaches whom: connections, transfers, packet sizes and source addresses between pods."""

from __future__ import annotations

import re
import signal
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from conformance.chains.traffic import Server, rate
from conformance.state import entered
from tests.lab.space import until
from tests.lab.underlay import WORLD, WORLD6

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.cluster import Cluster
    from tests.lab.node import Pod
    from tests.lab.space import Space

MEGABYTE = 1_000_000
_HEADERS = {4: 20 + 8, 6: 40 + 8}  # IP and ICMP, which ping's -s does not count
_TIMEOUT_S = 10.0
_SEQUENCE = re.compile(r"bytes from .* icmp_seq=(\d+) ")


class End(Protocol):
    """A pod, as far as packets see it."""

    @property
    def node(self) -> Space:
        """The node that it is on."""

    @property
    def inside(self) -> str:
        """Path of its network namespace as seen from the node."""

    @property
    def addresses(self) -> dict[int, str]:
        """Its addresses by family."""


class Trip(NamedTuple):
    """A transfer from a pod to another: how long it took, or why it failed."""

    source: Pod
    target: Pod
    family: int
    seconds: float
    error: str

    def __str__(self) -> str:
        there = self.target.addresses[self.family]
        return f"{self.source.name} -> {self.target.name} {there}: {self.error or self.seconds}"


class Loss(NamedTuple):
    """Packets sent while something happened, and how many of them were not answered."""

    sent: int
    lost: int


@contextmanager
def serving(cluster: Cluster) -> Iterator[None]:
    """Let each pod answer on port 80 with its name."""
    with ExitStack() as stack:
        for pod in cluster.pods:
            stack.enter_context(Server(pod.netns, pod.name))
        yield


def trips(cluster: Cluster, amount: int = MEGABYTE) -> list[Trip]:
    """Send so many bytes from every pod to every pod, over each family."""
    with serving(cluster):
        return [
            trip(source, target, family, amount)
            for family in cluster.families
            for source in cluster.pods
            for target in cluster.pods
        ]


def trip(source: Pod, target: Pod, family: int, amount: int = MEGABYTE) -> Trip:
    """Send bytes to a pod that serves; seconds with the connection's making."""
    start = time.monotonic()
    try:
        rate(source.netns, target.addresses[family], 80, "take", amount)
    except OSError as error:
        return Trip(source, target, family, 0.0, str(error) or repr(error))
    return Trip(source, target, family, time.monotonic() - start, "")


def failures(cluster: Cluster) -> list[str]:
    """Name every trip that fails."""
    return [str(trip) for trip in trips(cluster) if trip.error]


def ping(space: Space, netns: str, address: str, *options: str) -> bool:
    """Send one packet from a namespace that a path in a space names; whether it was answered."""
    inside = ("nsenter", f"--net={netns}") if netns else ()
    command = (*inside, "ping", "-n", "-c", "1", "-W", "2", *options, address)
    return space.run(*command, check=False).status == 0


def largest(source: End, target: End, family: int, mtu: int) -> tuple[bool, bool]:
    """Whether an unfragmented packet of the MTU arrives, and whether one that is a byte larger."""
    sizes = (mtu - _HEADERS[family], mtu - _HEADERS[family] + 1)
    arrived = [
        ping(source.node, source.inside, target.addresses[family], "-M", "do", "-s", str(size))
        for size in sizes
    ]
    return arrived[0], arrived[1]


def source_seen(client: Path, server: Path, address: str) -> str:
    """Connect from one namespace to an address of another: the client's address, as seen there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with entered(server):
        listening = socket.create_server((address, 0), family=family)
    with entered(client):
        connection = socket.socket(family)
    with listening, connection:
        connection.settimeout(_TIMEOUT_S)
        listening.settimeout(_TIMEOUT_S)
        connection.connect(listening.getsockname()[:2])
        accepted, seen = listening.accept()
        accepted.close()
        return str(seen[0])


def world(family: int) -> str:
    """Give the address of the world outside."""
    return WORLD if family == 4 else WORLD6


class Stream:
    """Packets from a pod to an address, a hundred a second, until it is stopped."""

    def __init__(self, source: Pod, address: str) -> None:
        self._log = source.node.path(f"/run/ping-{source.name}-{address}")
        self._name = f"{source.name} -> {address}"
        self._ping = source.node.start(
            *("ip", "netns", "exec", source.name, "ping", "-n", "-i", "0.01", address),
            log=f"/run/{self._log.name}",
        )
        self.flow()
        self._first = max(self._answered())  # what comes before is the neighbours' acquaintance

    def flow(self) -> None:
        """Wait for twenty more answers. LabError if there are none."""
        goal = len(self._answered()) + 20
        until(f"answers to {self._name}", lambda: len(self._answered()) >= goal)

    def _answered(self) -> set[int]:
        return {int(number) for number in _SEQUENCE.findall(self._log.read_text())}

    def stop(self) -> Loss:
        """Stop after some more answers."""
        self.flow()
        self._ping.signal(signal.SIGKILL)
        self._ping.wait()
        answered = self._answered()
        sent = range(self._first, max(answered) + 1)
        return Loss(len(sent), len(set(sent) - answered))

"""The udp backend against host-gw and against a plain loop of one packet at a time.

Two nodes in private namespaces, a veth pair between them, one TCP stream. The three ways take
turns, so that a noisy machine is noisy for all of them; the ratios are of medians.

    python -m bench.udp [--rounds N] [--seconds S] [--streams N]
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from conformance.command import run_command
from conformance.words import Words, duration, positive
from flanneld.forward.datagram import bound
from flanneld.forward.forwarding import Forwarding
from flanneld.forward.keeper import Keeper
from flanneld.forward.tun import Tun

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = IPv4Network("10.9.0.0/16")
MTU = 1500 - 28
NODES = {"one": 1, "two": 2}
WAYS = ("host-gw", "udp", "plain loop")
PORT = 8285
CHUNK = bytes(1 << 17)


def underlay(number: int) -> IPv4Address:
    return IPv4Address("192.168.9.0") + number


def pods(number: int) -> IPv4Network:
    return IPv4Network((int(NETWORK.network_address) + (number << 8), 24))


# ------------------------------------------------------------------------------------- one node


async def forward(number: int) -> None:
    """A node's forwarder as the daemon has it, until SIGTERM."""
    other = 3 - number
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    keeper = Keeper(stop.set)
    problems = await keeper.apply(
        Forwarding(
            device="flannel0",
            mtu=MTU,
            local=underlay(number),
            port=PORT,
            network=NETWORK,
            subnet=pods(number),
            nodes={pods(other): underlay(other)},
        )
    )
    assert not problems, problems
    print("ready", flush=True)
    await stop.wait()
    await keeper.close()


def loop(number: int) -> None:
    """What anybody would write first: a packet is read, its header changed, and it is sent."""
    tun = Tun("flannel0")
    tun.set_up(MTU)
    sock = bound(underlay(number), PORT)
    sock.setsockopt(17, 104, 0)  # no UDP_GRO
    print("ready", flush=True)
    to = (str(underlay(3 - number)), PORT)
    head, body = bytearray(10), bytearray(MTU)
    view, nothing = memoryview(body), bytes(10)
    poll = select.epoll()
    poll.register(tun.fd, select.EPOLLIN)
    poll.register(sock, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == tun.fd:
                size = os.readv(tun.fd, [head, body]) - len(head)
                lower_ttl(body)
                sock.sendto(view[:size], to)
            else:
                size = sock.recv_into(body)
                lower_ttl(body)
                os.writev(tun.fd, [nothing, view[:size]])


def lower_ttl(body: bytearray) -> None:
    body[8] -= 1
    value = (body[10] << 8 | body[11]) + 0x100
    value += value >= 0xFFFF
    body[10], body[11] = value >> 8 & 0xFF, value & 0xFF


def receive(streams: int) -> None:
    """Print how many bytes came, and in how many seconds, once all connections have ended."""
    with socket.create_server(("", 5001)) as server:
        print("ready", flush=True)
        sockets = [server.accept()[0] for _ in range(streams)]
    poll = select.epoll()
    by_fd = {sock.fileno(): sock for sock in sockets}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    buffer = bytearray(1 << 20)
    total = 0
    started = time.monotonic()
    while by_fd:
        for fd, _ in poll.poll():
            size = by_fd[fd].recv_into(buffer)
            total += size
            if not size:
                poll.unregister(fd)
                del by_fd[fd]
    print(total, time.monotonic() - started, flush=True)


def send(to: str, seconds: float, streams: int) -> None:
    sockets = [socket.create_connection((to, 5001)) for _ in range(streams)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sock in select.select([], sockets, [], 1)[1]:
            sock.send(CHUNK, socket.MSG_DONTWAIT)
    for sock in sockets:
        sock.close()


# ------------------------------------------------------------------------------------ the contest


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def make_nodes() -> None:
    os.makedirs("/run/netns", exist_ok=True)
    for name in NODES:
        ip("netns", "add", name)
    ip("link", "add", "eth0", "netns", "one", "type", "veth", "peer", "eth0", "netns", "two")
    for name, number in NODES.items():
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "address", "add", f"{underlay(number)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "address", "add", f"{pods(number)[1]}/32", "dev", "lo")


@contextmanager
def program(node: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """This file on a node, from when it says that it is ready."""
    argv = ["ip", "netns", "exec", node, sys.executable, "-m", "bench.udp", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.terminate()


@contextmanager
def way(name: str) -> Iterator[None]:
    with ExitStack() as stack:
        for node, number in NODES.items():
            other = 3 - number
            if name == "host-gw":
                to = (str(pods(other)), "via", str(underlay(other)))
            else:
                kind = "forward" if name == "udp" else "loop"
                stack.enter_context(program(node, kind, str(number)))
                ip("-n", node, "address", "add", f"{pods(number)[0]}/32", "dev", "flannel0")
                to = (str(NETWORK), "dev", "flannel0")
            source = ("src", str(pods(number)[1]))
            ip("-n", node, "route", "add", *to, *source)
            if name == "host-gw":
                stack.callback(ip, "-n", node, "route", "del", *to)
        yield


def gigabits(name: str, seconds: float, streams: int) -> float:
    """Measure one way once, at the receiver."""
    with way(name), program("two", "receive", str(streams)) as receiver:
        argv = ["send", str(pods(2)[1]), str(seconds), str(streams)]
        subprocess.run(
            ["ip", "netns", "exec", "one", sys.executable, "-m", "bench.udp", *argv], check=True
        )
        assert receiver.stdout is not None
        size, took = map(float, receiver.stdout.readline().split())
        return size * 8 / took / 1e9


def contest(rounds: int, seconds: float, streams: int) -> None:
    make_nodes()
    figures: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in WAYS:
            figures[name].append(gigabits(name, seconds, streams))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(f"{'way':<12}{'Gbit/s':>8}{'of host-gw':>12}{'of the loop':>13}   each round")
    for name in WAYS:
        print(
            f"{name:<12}{medians[name]:8.2f}{medians[name] / medians['host-gw']:12.2f}"
            f"{medians[name] / medians['plain loop']:13.2f}   "
            + " ".join(f"{value:.2f}" for value in figures[name])
        )


def main(argv: list[str]) -> int:
    match argv:
        case ["forward", number]:
            asyncio.run(forward(int(number)))
        case ["loop", number]:
            loop(int(number))
        case ["receive", streams]:
            receive(int(streams))
        case ["send", to, seconds, streams]:
            send(to, float(seconds), int(streams))
        case _:
            parser = Words(prog="./build.sh bench udp", description=__doc__)
            parser.add_argument("--rounds", type=positive, default=7)
            parser.add_argument("--seconds", type=duration, default=3)
            parser.add_argument("--streams", type=positive, default=1)
            options = parser.parse_args(argv)
            if "FLANNEL_BENCH" not in os.environ:
                os.environ["FLANNEL_BENCH"] = "1"
                private = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
                mount = 'mount -t tmpfs none /run && exec "$0" "$@"'
                again = [sys.executable, "-m", "bench.udp", *argv]
                os.execvp("unshare", [*private, "--mount-proc", "sh", "-c", mount, *again])
            contest(options.rounds, options.seconds, options.streams)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].startswith("-"):  # one of the contest's own processes
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.exit(main(sys.argv[1:]))
    run_command("bench udp", lambda: main(sys.argv[1:]))

"""The forwarder's table, and how packets are parted for the system calls that send them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from flanneld.forward.runs import Run, most, runs
from flanneld.forward.table import Gate, Table

TABLE = Table({
    "10.1.2.0/24": "192.168.9.2",
    "10.1.3.0/25": "192.168.9.3",
    "10.1.0.0/20": "192.168.9.9",
})  # fmt: skip


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("10.1.2.0", "192.168.9.2"),
        ("10.1.2.255", "192.168.9.2"),
        ("10.1.3.127", "192.168.9.3"),
        ("10.1.3.128", "192.168.9.9"),
        ("10.1.16.0", None),
        ("9.255.255.255", None),
    ],
)
def test_the_longest_prefix_wins(address: str, node: str | None) -> None:
    packed = IPv4Address(address).packed
    assert TABLE.node(packed) == node
    assert TABLE.node(packed) == node  # remembered


def test_the_nodes_are_known_by_address() -> None:
    assert TABLE.nodes == {"192.168.9.2", "192.168.9.3", "192.168.9.9"}


def test_a_scan_of_addresses_does_not_fill_the_memory() -> None:
    table = Table({"10.0.0.0/8": "192.168.9.2"})
    for number in range(70_000):
        assert table.node((0x0A000000 + number).to_bytes(4, "big"))
    assert len(table._found) < 1 << 16


@pytest.mark.parametrize(
    ("lengths", "nodes", "expected"),
    [
        ([], [], []),
        ([1472] * 3, ["a"] * 3, [Run(0, 3, "a", 1472)]),
        ([1472, 1472, 60, 1472], ["a"] * 4, [Run(0, 3, "a", 1472), Run(3, 4, "a", 1472)]),
        ([60, 1472], ["a"] * 2, [Run(0, 1, "a", 60), Run(1, 2, "a", 1472)]),
        ([60] * 3, ["a", "b", "b"], [Run(0, 1, "a", 60), Run(1, 3, "b", 60)]),
        ([60] * 3, ["a", None, "a"], [Run(0, 1, "a", 60), Run(2, 3, "a", 60)]),
        ([60, 50, 50], ["a"] * 3, [Run(0, 2, "a", 60), Run(2, 3, "a", 50)]),
        ([60, 50], ["a", "b"], [Run(0, 1, "a", 60), Run(1, 2, "b", 50)]),
        ([52] * 65, ["a"] * 65, [Run(0, 64, "a", 52), Run(64, 65, "a", 52)]),
        ([1472] * 45, ["a"] * 45, [Run(0, 44, "a", 1472), Run(44, 45, "a", 1472)]),
    ],
)
def test_runs(lengths: list[int], nodes: list[str | None], expected: list[Run]) -> None:
    assert list(runs(lengths, nodes)) == expected


@pytest.mark.parametrize("length", [1, 52, 1024, 1472, 8972, 65507])
def test_a_run_fits_a_system_call(length: int) -> None:
    assert 1 <= most(length) <= 64
    assert most(length) * length <= 65507


def header(source: str, destination: str, options: bytes = b"") -> bytearray:
    """An IPv4 header, as far as the gate reads it, in a larger buffer."""
    first = bytes([0x45 + len(options) // 4]) + bytes(11)
    hosts = IPv4Address(source).packed + IPv4Address(destination).packed
    return bytearray(b"\xff" * 4 + first + hosts + options + b"\xff" * 40)


@pytest.mark.parametrize(
    ("source", "destination", "options", "admitted"),
    [
        ("10.1.2.3", "10.1.3.4", b"", True),
        ("10.1.3.4", "10.1.3.4", b"", True),
        ("8.8.8.8", "10.1.3.4", b"", False),
        ("10.1.2.3", "10.1.2.4", b"", False),
        ("10.1.2.3", "192.168.9.1", b"", False),
        ("10.1.2.3", "10.1.3.4", b"\x01\x01\x01\x00", True),
        ("10.1.2.3", "10.1.3.4", b"\x94\x04\x00\x00", True),  # router alert
        ("10.1.2.3", "10.1.3.4", b"\x83\x07\x04\x0a\x09\x09\x09\x00", False),
        ("10.1.2.3", "10.1.3.4", b"\x01\x89\x03\x04", False),
        ("10.1.2.3", "10.1.3.4", b"\x44\x01\x00\x00", False),  # it would never end
        ("10.1.2.3", "10.1.3.4", b"\x01\x01\x01\x44", False),
        ("10.1.2.3", "10.1.3.4", b"\x44\x05\x00\x00", False),
    ],
)
def test_what_may_come_in(source: str, destination: str, options: bytes, admitted: bool) -> None:  # noqa: FBT001
    gate = Gate("10.1.0.0/16", "10.1.3.0/24")
    for _ in range(2):  # and again, remembered
        assert gate.admits(header(source, destination, options), 4) is admitted

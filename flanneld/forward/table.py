"""Which node has which pods: the forwarder's routing table.  Pure."""

from __future__ import annotations

from socket import inet_aton
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED = 1 << 16  # destinations; then the memory is begun anew


class Table:
    """Looks addresses (4 bytes) up by longest prefix, and remembers what it found."""

    def __init__(self, nodes: Mapping[str, str]) -> None:
        """Take the address of the node behind each subnet (``10.1.2.0/24``).

        Packets wait meanwhile, so subnets are read by hand, ten times as fast as by ``ipaddress``.
        """
        self.nodes = frozenset(nodes.values())
        by_length: dict[int, dict[int, str]] = {}
        for subnet, node in nodes.items():
            base, _, length = subnet.partition("/")
            prefix = int.from_bytes(inet_aton(base), "big") >> (32 - int(length))
            by_length.setdefault(int(length), {})[prefix] = node
        self._by_length = sorted(by_length.items(), reverse=True)
        self._found: dict[bytes, str | None] = {}

    def node(self, destination: bytes) -> str | None:
        """Give the address of the node that has the destination; None if there is none."""
        try:
            return self._found[destination]
        except KeyError:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[destination] = node = self._search(destination)
            return node

    def _search(self, destination: bytes) -> str | None:
        number = int.from_bytes(destination, "big")
        for length, prefixes in self._by_length:
            if node := prefixes.get(number >> (32 - length)):
                return node
        return None

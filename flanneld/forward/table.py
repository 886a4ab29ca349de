"""Which node has which pods: the forwarder's routing table.  Pure."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED = 1 << 16  # destinations; then the memory is begun anew


class Table:
    """Looks addresses (4 bytes) up by longest prefix, and remembers what it found."""

    def __init__(self, peers: Mapping[IPv4Network, str]) -> None:
        """Take the address of the node behind each subnet."""
        self.nodes = frozenset(peers.values())
        by_length: dict[int, dict[int, str]] = {}
        for subnet, node in peers.items():
            prefix = int(subnet.network_address) >> (32 - subnet.prefixlen)
            by_length.setdefault(subnet.prefixlen, {})[prefix] = node
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


def from_json(document: Mapping[str, str]) -> Table:
    """Read a table as the daemon sends it: subnet to node."""
    return Table({IPv4Network(subnet): node for subnet, node in document.items()})

"""Which node has which pods, and what may come in from them: the forwarder's knowledge.  Pure."""

from __future__ import annotations

from socket import inet_aton
from typing import TYPE_CHECKING

from flanneld.forward import packet

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
            prefix, others = _prefix(subnet)
            by_length.setdefault(32 - others, {})[prefix] = node
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


class Gate:
    """What may come in: packets from the network to this node's subnet, on the straight way.

    Whoever can send datagrams with a node's address would else reach all that this node reaches.
    """

    def __init__(self, network: str, subnet: str) -> None:
        self._prefixes = [_prefix(network), _prefix(subnet)]
        self._found: dict[bytes, bool] = {}

    def admits(self, buffer: bytearray, at: int) -> bool:
        """Whether the IPv4 packet that begins there may come in."""
        pair = bytes(buffer[at + packet.SOURCE : at + packet.SOURCE + 8])
        known = self._found.get(pair)
        if known is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            ends = int.from_bytes(pair[:4], "big"), int.from_bytes(pair[4:], "big")
            known = self._found[pair] = all(
                end >> shift == prefix
                for end, (prefix, shift) in zip(ends, self._prefixes, strict=True)
            )
        return known and not packet.is_source_routed(buffer, at)


def _prefix(subnet: str) -> tuple[int, int]:
    """Give the bits of a subnet, and how many others an address has."""
    base, _, length = subnet.partition("/")
    others = 32 - int(length)
    return int.from_bytes(inet_aton(base), "big") >> others, others

"""IP addresses and prefixes as integers: parse, print, compare, count.

Accepts what Go's net.ParseIP and net.ParseCIDR accept and prints as they do (RFC 5952): no
zones, no leading zeros, no dotted masks, and an IPv4-mapped address is IPv4. Pure.

Import contract: cni.native only, for inet_pton and inet_ntop.
"""

from __future__ import annotations

from cni.native import socket

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_BITS = {4: 32, 6: 128}
_MAPPED = 0xFFFF  # the upper 96 bits of ::ffff:0:0/96


class Address:
    """An address: `family` is 4 or 6, `value` its bits as an integer."""

    __slots__ = ("family", "value")

    def __init__(self, family: int, value: int) -> None:
        if value < 0 or value >> _BITS[family]:
            msg = f"no IPv{family} address has the value {value}"
            raise OverflowError(msg)
        self.family = family
        self.value = value

    @property
    def bits(self) -> int:
        """32 or 128."""
        return _BITS[self.family]

    @property
    def packed(self) -> bytes:
        """4 or 16 bytes, network order."""
        return self.value.to_bytes(_BITS[self.family] // 8, "big")

    @staticmethod
    def from_packed(packed: bytes) -> Address:
        """Read 4 or 16 bytes in network order, as the kernel gives them."""
        if len(packed) not in (4, 16):
            msg = f"an address has 4 or 16 bytes, not {len(packed)}"
            raise ValueError(msg)
        return Address(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))

    def __str__(self) -> str:
        if self.family == 6 and 16 <= self.value.bit_length() <= 32:
            # glibc would print the last 32 bits dotted (the old IPv4-compatible form); Go does not
            high, low = self.value >> 16, self.value & 0xFFFF
            return f"::{high:x}:{low:x}" if high else f"::{low:x}"
        return socket.inet_ntop(_AF[self.family], self.packed)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.value == other.value and self.family == other.family

    def __hash__(self) -> int:
        return hash((self.family, self.value))

    def __lt__(self, other: Address) -> bool:
        return (self.family, self.value) < (other.family, other.value)

    def __le__(self, other: Address) -> bool:
        return (self.family, self.value) <= (other.family, other.value)

    def __gt__(self, other: Address) -> bool:
        return other < self

    def __ge__(self, other: Address) -> bool:
        return other <= self

    def __add__(self, n: int) -> Address:
        return Address(self.family, self.value + n)

    def succ(self) -> Address:
        """Return the next address; OverflowError after the last."""
        return self + 1

    def pred(self) -> Address:
        """Return the previous address; OverflowError before the first."""
        return self + -1


class Prefix:
    """An address with a prefix length; the address keeps its host bits."""

    __slots__ = ("address", "length")

    def __init__(self, address: Address, length: int) -> None:
        if not 0 <= length <= _BITS[address.family]:
            msg = f"IPv{address.family} has no prefix length {length}"
            raise ValueError(msg)
        self.address = address
        self.length = length

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.address.family

    @property
    def _host_bits(self) -> int:
        return (1 << (_BITS[self.address.family] - self.length)) - 1

    @property
    def first(self) -> Address:
        """The network address."""
        return Address(self.family, self.address.value & ~self._host_bits)

    @property
    def last(self) -> Address:
        """The address with every host bit set; in IPv4 that is the broadcast address."""
        return Address(self.family, self.address.value | self._host_bits)

    broadcast = last

    @property
    def network(self) -> Prefix:
        """The same prefix without host bits."""
        return Prefix(self.first, self.length)

    def contains(self, address: Address) -> bool:
        """Whether the address lies inside; an address of the other family never does."""
        if address.family != self.family:
            return False
        return (address.value ^ self.address.value) <= self._host_bits

    def overlaps(self, other: Prefix) -> bool:
        """Whether some address lies in both."""
        wider, narrower = (self, other) if self.length <= other.length else (other, self)
        return wider.contains(narrower.address)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefix):
            return NotImplemented
        return self.length == other.length and self.address == other.address

    def __hash__(self) -> int:
        return hash((self.address, self.length))


def parse_address(text: str) -> Address:
    """Read an address as net.ParseIP does; ValueError otherwise."""
    family, value = _parse(text, "invalid IP address: ", text)
    if family == 6 and value >> 32 == _MAPPED:
        return Address(4, value & 0xFFFFFFFF)
    return Address(family, value)


def parse_prefix(text: str) -> Prefix:
    """Read "address/length" as net.ParseCIDR does, host bits kept; ValueError otherwise.

    "::ffff:10.0.0.0/120" is 10.0.0.0/24; a mapped address with a length under 96 is refused,
    because it would be an IPv4 address in an IPv6 network.
    """
    complaint = "invalid CIDR address: "
    address, slash, digits = text.partition("/")
    family, value = _parse(address, complaint, text)
    if not slash or not digits.isascii() or not digits.isdigit() or len(digits) > 6:
        raise ValueError(complaint + text)
    length = int(digits)
    if family == 6 and value >> 32 == _MAPPED:
        family, value, length = 4, value & 0xFFFFFFFF, length - 96
    if not 0 <= length <= _BITS[family]:
        raise ValueError(complaint + text)
    return Prefix(Address(family, value), length)


def _parse(text: str, complaint: str, whole: str) -> tuple[int, int]:
    """Return (family, value) of an address; the ValueError shows `complaint` and `whole`."""
    family = 6 if ":" in text else 4
    try:
        return family, int.from_bytes(socket.inet_pton(_AF[family], text), "big")
    except (OSError, ValueError):
        raise ValueError(complaint + whole) from None

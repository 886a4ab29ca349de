"""The network's configuration: ``net-conf.json``, or the store's key ``config``.

Keys match without regard to case, unknown ones are ignored, host bits of a CIDR are masked off, as
the Go daemon reads it (pkg/subnet/config.go).  Values only: knows neither stores nor backends; what
is inside ``Backend`` beside its type is for the backend to read.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NetmaskValueError,
)
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flanneld.document import load
from flanneld.plain import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_BACKEND = "udp"  # of a configuration without `Backend`
_MISSING: Any = object()

Network = TypeVar("Network", IPv4Network, IPv6Network)


class ConfigError(ValueError):
    """The configuration is wrong; ``str`` names the key, the value and what is expected."""


@contextmanager
def blamed(source: str) -> Iterator[None]:
    """Name where a configuration is from in what is found wrong with it."""
    try:
        yield
    except ConfigError as error:
        said = str(error)
        raise ConfigError(said if source in said else f"{source}: {said}") from None


@dataclass(frozen=True, slots=True)
class Pool(Generic[Network]):
    """The subnets of one family that can be leased.

    Each is of prefix length ``length``; ``first`` and ``last`` are both included.
    """

    network: Network
    length: int
    first: Network
    last: Network

    def holds(self, subnet: Network) -> bool:
        """Whether a lease of this subnet fits the configuration."""
        return (
            subnet.prefixlen == self.length
            and self.first.network_address <= subnet.network_address <= self.last.network_address
        )


@dataclass(frozen=True, slots=True)
class NetConf:
    """A network's configuration.  A pool is None if the family is disabled.

    ``backend_type`` is in lower case; ``backend`` is the raw object, its type included.
    """

    pool: Pool[IPv4Network] | None
    pool6: Pool[IPv6Network] | None
    nftables: bool = False
    backend_type: str = DEFAULT_BACKEND
    backend: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def network(self) -> IPv4Network | None:
        """The IPv4 network; None if IPv4 is disabled."""
        return self.pool.network if self.pool else None

    @property
    def network6(self) -> IPv6Network | None:
        """The IPv6 network; None if IPv6 is disabled."""
        return self.pool6.network if self.pool6 else None


@dataclass(frozen=True, slots=True)
class _Words(Generic[Network]):
    """How the rules of one family are spelled, and their numbers."""

    make: type[Network]
    network: str
    length: str
    first: str
    last: str
    bits: int
    whole: int  # the length of a node's subnet where the network is wide enough


_IPV4 = _Words(IPv4Network, "Network", "SubnetLen", "SubnetMin", "SubnetMax", 32, 24)
_IPV6 = _Words(
    IPv6Network, "IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", 128, 64
)


def parse(text: str) -> NetConf:
    """Read and check a configuration; ConfigError if it is wrong."""
    try:
        document = load(text)
    except ValueError as error:
        raise ConfigError(
            f"the network configuration is not JSON: {error}: {quoted(text)}"
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"the network configuration is not a JSON object: {quoted(text)}")
    with_ipv4 = boolean(document, "EnableIPv4", default=True)
    with_ipv6 = boolean(document, "EnableIPv6", default=False)
    if not (with_ipv4 or with_ipv6):
        raise ConfigError("EnableIPv4 and EnableIPv6 are both false: enable one of them")
    backend = lookup(document, "Backend", None)
    return NetConf(
        pool=_pool(document, _IPV4) if with_ipv4 else None,
        pool6=_pool(document, _IPV6) if with_ipv6 else None,
        nftables=boolean(document, "EnableNFTables", default=False),
        backend_type=_backend_type(backend),
        backend=backend or {},
        text=text,
    )


def lookup(document: Mapping[str, Any], key: str, default: Any) -> Any:
    """Give the value of a key in any case; JSON's null counts as absent.

    The key as it is spelled here wins over other spellings, of which the last one counts.
    """
    if document.get(key) is not None:
        return document[key]
    found = default
    for name, value in document.items():
        if name.lower() == key.lower() and value is not None:
            found = value
    return found


def boolean(document: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """Read a boolean; ConfigError for any other type."""
    value = lookup(document, key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {quoted(value)}")
    return value


def number(document: Mapping[str, Any], key: str, *, default: int, largest: int) -> int:
    """Read a whole number from 0 to ``largest``; ConfigError for anything else."""
    value = lookup(document, key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ConfigError(f"{key} must be a whole number from 0 to {largest}, not {quoted(value)}")
    return value


def string(document: Mapping[str, Any], key: str, *, default: str) -> str:
    """Read a string; ConfigError for any other type."""
    value = lookup(document, key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{key} must be a string, not {quoted(value)}")
    return value


def _backend_type(backend: Any) -> str:
    if backend is None:
        return DEFAULT_BACKEND
    if not isinstance(backend, dict):
        raise ConfigError(
            f"error decoding Backend property of config: {quoted(backend)} is not an object"
        )
    return string(backend, "Type", default="").lower()


def _pool(document: Mapping[str, Any], words: _Words[Network]) -> Pool[Network]:
    network = _network(document, words)
    length = _length(document, words, network)
    step = 1 << (words.bits - length)
    base = int(network.network_address)
    first = _edge(document, words, words.first, network, length, default=base + step)
    last = _edge(
        document, words, words.last, network, length, default=base + network.num_addresses - step
    )
    if first.network_address > last.network_address:
        raise ConfigError(
            f"{words.first} {first.network_address} is above {words.last} {last.network_address}:"
            " no subnet is left between them"
        )
    return Pool(network, length, first, last)


def _network(document: Mapping[str, Any], words: _Words[Network]) -> Network:
    value = lookup(document, words.network, _MISSING)
    try:
        if isinstance(value, str) and "/" in value:
            return words.make(value, strict=False)
    except (AddressValueError, NetmaskValueError):
        pass
    shown = "it is missing" if value is _MISSING else f"{quoted(value)} is not a CIDR of its family"
    raise ConfigError(
        f"please define a correct {words.network} parameter in the flannel config: {shown}"
    )


def _length(document: Mapping[str, Any], words: _Words[Network], network: Network) -> int:
    longest = words.bits - 2  # a subnet holds a tunnel's and a bridge's address
    length = number(document, words.length, default=0, largest=words.bits)
    wide = network.prefixlen + 2  # the first of the four subnets is not used
    if length > longest:
        raise ConfigError(f"SubnetLen must be less than /{longest + 1}: {words.length} is {length}")
    if length and length < wide:
        raise ConfigError(
            "network must be able to accommodate at least four subnets:"
            f" {words.length} is {length} and {words.network} {network}"
        )
    if not length and wide > longest:
        name = "network" if words.bits == 32 else words.network
        raise ConfigError(
            f"{name} is too small. Minimum useful network prefix is /{longest - 2}: it is {network}"
        )
    return length or max(words.whole, wide)


def _edge(
    document: Mapping[str, Any],
    words: _Words[Network],
    key: str,
    network: Network,
    length: int,
    *,
    default: int,
) -> Network:
    """Read the first or last subnet, given by its base address; an empty address is absent."""
    value = string(document, key, default="")
    make = IPv4Address if words.bits == 32 else IPv6Address
    try:
        address = make(value) if value else make(0)
    except AddressValueError:
        raise ConfigError(f"{key} is not an address of its family: {quoted(value)}") from None
    if int(address) == 0:
        return words.make((default, length))
    if address not in network:
        raise ConfigError(f"{key} is not in the range of the {words.network}: {address}, {network}")
    try:
        return words.make((int(address), length))
    except ValueError:
        raise ConfigError(f"{key} is not on a SubnetLen boundary: {address}") from None

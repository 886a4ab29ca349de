"""The identity of an attachment and the names that carry it into the kernel.

An attachment is (network name, container ID, ifname). The host veth's name is a hash of the
three and its alias (IFLA_IFALIAS, include/uapi/linux/if_link.h) spells them out, so that any
later call finds the link without a file. A mark behind it says what the link is: an ADD has not
come to its end, or the packet filter has rules of the attachment. Pure: opens nothing.
"""

from __future__ import annotations

from zlib import crc32

ALIAS_BYTES = 255  # IFALIASZ is 256 and the kernel wants a shorter text than that
HOST_VETH_NAMES = 16  # of one attachment: its own, and more for when a stranger bears that
_TAG = "flannel"
BRIDGE_ALIAS = f"{_TAG}:bridge"  # of a bridge that was made for attachments, and of its gateways
_ADDING = " (adding)"
_RULES = " (rules)"


class Attachment:
    """A value: equal when network, container ID and ifname are."""

    __slots__ = ("container_id", "ifname", "network")

    def __init__(self, network: str, container_id: str, ifname: str) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname

    def _key(self) -> tuple[str, str, str]:
        return self.network, self.container_id, self.ifname

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attachment) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Attachment{self._key()!r}"

    def host_veth_name(self, n: int = 0) -> str:
        """Return "veth" and 8 hex digits; n > 0 gives further names when that one is taken."""
        salted = self._key() if n == 0 else (*self._key(), str(n))
        return f"veth{crc32(_octets(chr(0).join(salted))):08x}"

    def alias(self, *, adding: bool = False, rules: bool = False) -> str:
        """Return the text that proves a link ours, at most 255 bytes of it.

        Names cannot hold a ':', so the parts are unambiguous. In too long a text the network and
        the container are hashes: `parse_alias` cannot read it back. `adding` marks the link of an
        ADD that has not come to its end, `rules` one that may have rules in the packet filter.
        """
        text = ":".join((_TAG, *self._key()))
        if len(_octets(text)) > ALIAS_BYTES - len(_ADDING):
            text = f"{_hashed(self.network)}{_hash(self.container_id)}:{self.ifname}"
        return text + (_ADDING if adding else _RULES if rules else "")

    def owns(self, alias: str) -> bool:
        """Return whether a link's alias says that it is this attachment's, complete or not."""
        return without_mark(alias) == self.alias()

    def is_sibling(self, alias: str) -> bool:
        """Whether a link's alias is of another interface of the container on the network."""
        stem, _, ifname = without_mark(alias).rpartition(":")
        return stem == self.alias().rpartition(":")[0] and ifname != self.ifname


def without_mark(alias: str) -> str:
    """Return an alias as it is without "(adding)" or "(rules)" behind it."""
    return alias.removesuffix(_ADDING).removesuffix(_RULES)


def is_of_network(alias: str, network: str) -> bool:
    """Whether a link's alias says that it is of an attachment of the network."""
    if alias.startswith(f"{_TAG}::"):
        return alias.startswith(_hashed(network))
    return alias.startswith(f"{_TAG}:{network}:")


def parse_alias(text: str) -> Attachment | None:
    """Read `Attachment.alias` back; None when the text is not a spelled-out alias of ours."""
    parts = without_mark(text).split(":")
    if len(parts) != 4 or parts[0] != _TAG or not all(parts):
        return None
    return Attachment(parts[1], parts[2], parts[3])


def is_ours(alias: str) -> bool:
    """Whether a link's alias says that it was made for attachments, of whatever network."""
    return alias.startswith(f"{_TAG}:")


def _hashed(network: str) -> str:
    return f"{_TAG}::{_hash(network)}:"


def _hash(text: str) -> str:
    from hashlib import sha256  # 2 ms, for names that nobody has

    return sha256(_octets(text)).hexdigest()[:32]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

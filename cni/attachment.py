"""The identity of an attachment and the names that carry it into the kernel.

An attachment is (network name, container ID, ifname). The host veth's name is a hash of the
three and its alias (IFLA_IFALIAS, include/uapi/linux/if_link.h) spells them out, so that any
later call finds the link without a file. Pure: opens nothing.
"""

from __future__ import annotations

from zlib import crc32

ALIAS_BYTES = 255  # IFALIASZ is 256 and the kernel wants a shorter text than that
HOST_VETH_NAMES = 16  # of one attachment: its own, and more for when a stranger bears that
_TAG = "flannel"
BRIDGE_ALIAS = f"{_TAG}:bridge"  # of a bridge that was made for attachments, and of its gateways
_ADDING = " (adding)"


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

    def alias(self, *, adding: bool = False) -> str:
        """Return the text that proves a link ours, at most 255 bytes of it.

        Names cannot hold a ':', so the parts are unambiguous. Too long a text becomes a hash:
        it still proves this attachment, but `parse_alias` cannot read it back. `adding` marks
        the link of an ADD that has not come to its end.
        """
        text = ":".join((_TAG, *self._key()))
        if len(_octets(text)) > ALIAS_BYTES - len(_ADDING):
            from hashlib import sha256  # 2 ms, for names that nobody has

            text = f"{_TAG}::{sha256(_octets(text)).hexdigest()}"
        return text + _ADDING if adding else text

    def owns(self, alias: str) -> bool:
        """Return whether a link's alias says that it is this attachment's, complete or not."""
        return alias in (self.alias(), self.alias(adding=True))


def parse_alias(text: str) -> Attachment | None:
    """Read `Attachment.alias` back; None when the text is not a spelled-out alias of ours."""
    parts = text.removesuffix(_ADDING).split(":")
    if len(parts) != 4 or parts[0] != _TAG or not all(parts):
        return None
    return Attachment(parts[1], parts[2], parts[3])


def is_ours(alias: str) -> bool:
    """Whether a link's alias says that it was made for attachments, of whatever network."""
    return alias.startswith(f"{_TAG}:")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

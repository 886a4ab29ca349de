"""Names, hashes and comments of packet filter rules, as the reference plugins form them.

They are the compatibility contract: a rule that one implementation made is found and taken away
by the other only when chain name and comment agree byte for byte. Pure; knows no tool and no
table. The facts: `FormatChainName`, `FormatComment` (plugins pkg/utils) and the comment of the
nftables masquerade (plugins pkg/ip); both sides hash with SHA-512.

Import contract: the C module under `hashlib` here and nowhere else (`hashlib` costs 2 ms and
loads OpenSSL); its name changed in 3.12.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha512
else:
    try:
        from _sha512 import sha512
    except ImportError:  # pragma: no cover - 3.12 and later
        try:
            from _sha2 import sha512
        except ImportError:
            from hashlib import sha512

CHAIN_LENGTH = 28
"""Of an iptables chain: XT_EXTENSION_MAXNAMELEN less its NUL (linux/netfilter/x_tables.h)."""

XT_COMMENT_MAX = 255
"""Bytes of an iptables comment without its NUL (linux/netfilter/xt_comment.h)."""

NFT_COMMENT_MAX = 128
"""Bytes of an nftables comment (NFTNL_UDATA_COMMENT_MAXLEN of libnftnl)."""

NFT_CHAIN_MAX = 127
"""Bytes of an nftables chain name without its NUL (NFT_CHAIN_MAXNAMELEN)."""

NFT_ATTACHMENT_SIZE = 33
"""Characters of what nft_attachment returns."""

_DIGITS = frozenset("0123456789abcdef")

NFT_MASQ_TABLE = "cni_plugins_masquerade"
NFT_MASQ_CHAIN = "masq_checks"


def _hex(text: str) -> str:
    return sha512(text.encode("utf-8", "surrogateescape")).hexdigest()


def _cut(text: str, size: int) -> str:
    """Return at most `size` bytes of the text; half a character survives as Go leaves it."""
    return text.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "surrogateescape")


def chain(network: str, container_id: str) -> str:
    """Name the iptables chain of a container on a network; the interface name plays no part."""
    return ("CNI-" + _hex(network + container_id))[:CHAIN_LENGTH]


def is_chain(text: str) -> bool:
    """Whether it is a name such as `chain` gives."""
    digits = text.removeprefix("CNI-")
    return len(digits) == CHAIN_LENGTH - 4 and set(digits) <= _DIGITS


def comment(network: str, container_id: str) -> str:
    """Say in an iptables comment whose rule it is."""
    return _cut(f'name: "{network}" id: "{container_id}"', XT_COMMENT_MAX)


def quoted(text: str) -> str:
    """Write text as iptables prints and reads a word that needs quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
    return f'"{escaped}"'


def nft_network(network: str) -> str:
    """Return the 16 hex digits that begin every nftables comment of the network."""
    return _hex(network)[:16]


def nft_attachment(network: str, container_id: str, ifname: str) -> str:
    """Return the 33 characters that begin the nftables comments of one attachment, no others."""
    return nft_network(network) + "-" + _hex(f"{ifname}:{container_id}")[:16]


def nft_comment(network: str, container_id: str, ifname: str) -> str:
    """Say in an nftables comment whose rule it is: the hashes, then words, cut to what fits."""
    words = f"net: {network}, if: {ifname}, id: {container_id}".replace('"', "")
    return _cut(f"{nft_attachment(network, container_id, ifname)}, {words}", NFT_COMMENT_MAX)

"""Whether the store still says of a lease what its holder has written.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.claim import has_address, is_foreign
from flanneld.plain import quoted
from flanneld.subnet import keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from flanneld.lease import Attributes, Lease


def is_own(found: Lease, said: Collection[Attributes]) -> bool:
    """Whether a lease has the address of one of those that this node has written."""
    return any(has_address(found, one) for one in said)


def usurper(found: Lease, held: Lease) -> str:
    """Say that another node has written this node's key, with its address; "" if not."""
    told = found.attributes
    if not is_foreign(told, held.attributes.macs):
        return ""
    return (
        f"another node publishes this node's address {', '.join(map(str, told.public_ips))},"
        f" with the MAC {', '.join(sorted(told.macs))}: give each its own with --iface or"
        " --public-ip"
    )


def altered(found: Lease, said: Collection[Attributes]) -> str:
    """Say that somebody has written this node's key otherwise than it did; "" if not."""
    if found.attributes in said:
        return ""
    return f"somebody has written {quoted(keys.value(found.attributes))}"

"""The MACs of this node's devices: kept over restarts and reboots, so that peers need not relearn.

A device that exists keeps its MAC; else it comes from the file, else from the store, else it is
drawn.  The file bears the node's address in its name: a cloned disk does not clone the MAC.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from flanneld import files
from flanneld.backend.base import Identity
from flanneld.lease import MAC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld.backend.base import External


def resolve(
    names: tuple[str, str],
    existing: Mapping[str, str],
    kept: Identity,
    stored: Identity,
) -> Identity:
    """Decide on the MACs of the devices ``names``, one of each family.

    ``existing`` are the MACs of devices by name, ``kept`` is what the file holds, ``stored``
    what this node's lease in the store says.
    """
    return Identity(
        mac=existing.get(names[0]) or kept.mac or stored.mac or random_mac(),
        mac6=existing.get(names[1]) or kept.mac6 or stored.mac6 or random_mac(),
    )


def load(folder: str, names: tuple[str, str], external: External) -> Identity:
    """Read the file's MACs; a family without one has ""."""
    found = [_read(_path(folder, name, external)) for name in names]
    return Identity(*found)


def save(folder: str, names: tuple[str, str], external: External, identity: Identity) -> None:
    """Keep the MACs.  OSError."""
    for name, mac in zip(names, (identity.mac, identity.mac6), strict=True):
        if name:
            files.update(_path(folder, name, external), f"{mac}\n".encode())


def random_mac() -> str:
    """Draw a MAC that is locally administered and unicast (IEEE 802, clause 8.4)."""
    first, *rest = secrets.token_bytes(6)
    return bytes((first & 0xFE | 0x02, *rest)).hex(":")


def _path(folder: str, name: str, external: External) -> str:
    owner = external.public_ip or external.public_ip6
    return os.path.join(folder, "mac", f"{name}@{owner}")


def _read(path: str) -> str:
    text = (files.read(path) or b"").decode(errors="replace").strip().lower()
    return text if MAC.fullmatch(text) else ""

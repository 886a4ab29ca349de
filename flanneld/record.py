"""What this node held in its last run: a file that outlives a reboot, and shows whose it is.

It counts if this is the same network stack, still running; or the same machine by its name and
the MAC of the interface to the others.  A disk that was cloned has another interface.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flanneld import document, files
from flanneld.subnet import keys

if TYPE_CHECKING:
    from collections.abc import Collection

    from flanneld.lease import Lease

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machine:
    """This node: its name, its network stack as long as it runs, the MACs of its interfaces."""

    name: str
    stack: str
    macs: tuple[str, ...]


def machine(macs: Collection[str]) -> Machine:
    """Say which this one is.  OSError."""
    boot = (files.read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()
    return Machine(os.uname().nodename, f"{boot} {os.stat('/proc/self/ns/net').st_ino}", (*macs,))


def path(folder: str, subnet_file: str, kind: str = "last") -> str:
    """Where it is, or another thing that a daemon keeps: a file for each ``subnet.env``."""
    name = os.path.abspath(subnet_file).strip("/").replace("/", "-")
    return os.path.join(folder, kind, f"{name}.json")


def save(place: str, this: Machine, lease: Lease) -> None:
    """Keep a lease, with ``this.macs`` of the interface to the others.  OSError."""
    told = {
        "node": this.name,
        "stack": this.stack,
        "macs": this.macs,
        "lease": lease.key,
        "value": keys.value(lease.attributes).decode(),
    }
    files.update(place, (json.dumps(told) + "\n").encode())


def load(place: str, this: Machine) -> Lease | None:
    """Give the lease of this node's last run; None if none is known, or it was another node's."""
    try:
        content = files.read(place)
        if content is None:
            return None
        told: dict[str, Any] = document.load(content)
        same_machine = told["node"] == this.name and set(told["macs"]) & set(this.macs)
        if told["stack"] != this.stack and not same_machine:
            _log.info("the last run's lease is another node's", extra={"file": place})
            return None
        return keys.lease(told["lease"], told["value"].encode())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _log.warning("the lease of the last run is not known: %r", error, extra={"file": place})
        return None

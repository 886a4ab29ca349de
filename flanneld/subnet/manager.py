"""The seam between the daemon and the stores of leases.

A store gives its leases as whole snapshots, never as differences: what has changed is found by the
one who compares, so that no event can be lost or misread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from flanneld.claim import Claim
    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease


class StoreError(Exception):
    """The store did not answer, or refused: try again.  ``str`` says what and where.

    ``after_s`` is when, in seconds, if the store itself has named a time.
    """

    def __init__(self, text: str, after_s: float | None = None) -> None:
        super().__init__(text)
        self.after_s = after_s


class Revoked(Exception):
    """The lease of this node is gone from the store, or another node holds it."""


class Exhausted(Exception):
    """There is no free subnet in the network."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a store has, by the store's own keys: leases, and what is wrong with other entries.

    An entry that was a lease and cannot be read any more is in both.  Where a store knows nodes by
    name, ``own`` is the key of this node's lease, "" if it has none yet.  ``asked`` are addresses
    by which somebody wants this node to be reached.
    """

    leases: Mapping[str, Lease] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    own: str | None = None
    asked: tuple[IPv4Address | IPv6Address, ...] = ()


class Manager(Protocol):
    """A store of leases.  Every call is bounded in time; StoreError if it can be tried again."""

    source: str  # where the network's configuration is, for people

    async def config(self) -> NetConf:
        """Give the network's configuration; ``config.ConfigError`` if it is wrong."""
        ...

    async def leases(self) -> Snapshot:
        """Give all leases, as they are now."""
        ...

    async def acquire(self, claim: Claim) -> Lease:
        """Lease a subnet for this node: the one that is its own by this claim, if there is one."""
        ...

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace what this node says of its lease; Revoked if it is not its lease any more."""
        ...

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Renew the lease in time, for ever; ends with Revoked.

        ``renewed`` is told each time its new end, and its subnets, which another may have changed.
        """
        ...

    def watch(self) -> AsyncGenerator[Snapshot, None]:
        """Give all leases, this node's among them, now and after each change.

        Changes that come together are given together; the snapshot is live.  StoreError when the
        store is away: what was given holds, and the next call begins with a new snapshot.
        """
        ...

    async def close(self) -> None:
        """Let go of the store; the lease stays."""
        ...


@runtime_checkable
class Announces(Protocol):
    """What a store has besides if others wait until a node works."""

    def announce(self) -> None:
        """Say that packets of this node's pods get through now."""
        ...

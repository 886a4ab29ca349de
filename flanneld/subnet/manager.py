"""The seam between the daemon and the stores of leases.

A store gives its leases as whole snapshots, never as differences: what has changed is found by the
one who compares, so that no event can be lost or misread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from flanneld.config import NetConf
    from flanneld.lease import Attributes, Lease


class StoreError(Exception):
    """The store did not answer, or refused: try again.  ``str`` says what and where."""


class Revoked(Exception):
    """The lease of this node is gone from the store, or another node holds it."""


class Exhausted(Exception):
    """There is no free subnet in the network."""


class Manager(Protocol):
    """A store of leases.  Every call is bounded in time; StoreError if it can be tried again."""

    source: str  # where the network's configuration is, for people

    async def config(self) -> NetConf:
        """Give the network's configuration; ``config.ConfigError`` if it is wrong."""
        ...

    async def own(self, attributes: Attributes) -> Lease | None:
        """Give the lease that names the public address of these attributes, as it is now."""
        ...

    async def acquire(self, attributes: Attributes, previous: Lease | None) -> Lease:
        """Lease a subnet for this node, the one it had before if that is possible.

        ``previous`` are the subnets of this node's ``subnet.env``.
        """
        ...

    async def publish(self, lease: Lease, attributes: Attributes) -> Lease:
        """Replace what this node says of its lease; Revoked if it is not its lease any more."""
        ...

    async def hold(self, lease: Lease, renewed: Callable[[Lease], None]) -> None:
        """Renew the lease in time, for ever, telling each time its new end; ends with Revoked."""
        ...

    def watch(self) -> AsyncGenerator[Mapping[str, Lease], None]:
        """Give all leases by key, this node's among them, now and after each change.

        Changes that come together are given together; the mapping is live.  StoreError when the
        store is away: what was given holds, and the next call begins with a new snapshot.
        """
        ...

    async def close(self) -> None:
        """Let go of the store; the lease stays."""
        ...

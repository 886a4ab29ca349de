"""Looks every few seconds at what the daemon does not program, and pods' packets need all the same.

What it finds goes to ``readiness``.  It remembers what only time tells: which link pods were on,
and whether the node did forward before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld.diagnosis.examination import examine
from flanneld.diagnosis.subject import Subject
from flanneld.firewall.kept import Kept
from flanneld.kernel import forwarding
from flanneld.rules.programs import system

if TYPE_CHECKING:
    from flanneld.backend.base import Backend
    from flanneld.desired import Desired
    from flanneld.lease import Lease
    from flanneld.node import Node
    from flanneld.readiness import Readiness


class Examiner:
    """One daemon's."""

    def __init__(self, backend: Backend, readiness: Readiness) -> None:
        self._backend = backend
        self._readiness = readiness
        self._filters = Kept(system())
        self._known = ""
        self._forwarded: frozenset[int] = frozenset()

    async def look(self, node: Node, peers: tuple[Lease, ...], desired: Desired) -> None:
        """Look once, and report."""
        firewall = await self._filters.current()
        self._forwarded |= {version for version in node.versions if forwarding.is_on(version)}
        subject = Subject(
            conf=node.conf,
            external=node.external,
            lease=node.lease,
            peers=peers,
            desired=desired,
            port=self._backend.port,
            known=self._known,
            forwarded=self._forwarded,
        )
        try:
            found = examine(subject, firewall)
        except OSError as error:
            self._readiness.report("way", [f"the kernel does not tell how packets go: {error}"])
            return
        self._known = found.link or self._known
        self._readiness.report("way", found.blocking, found.others)

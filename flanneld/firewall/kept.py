"""The packet filters as they were read last: read again when one has changed, and not too often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flanneld.firewall import reading
from flanneld.rules.generation import Watch

if TYPE_CHECKING:
    from flanneld.firewall.chains import Firewall
    from flanneld.rules.programs import Programs

_REST = 20  # times a reading's length: of thousands of rules it takes seconds


class Kept:
    """One network namespace's."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._watch = Watch()
        self._seen: object = None
        self._firewall: Firewall | None = None
        self._until = 0.0

    async def current(self) -> Firewall:
        """Give them as they are now, or as they were a while ago if reading them takes long."""
        now = asyncio.get_running_loop().time
        started, token = now(), self._watch.token()
        changed = token is None or token != self._seen
        if self._firewall is None or (changed and started >= self._until):
            self._firewall = await reading.read(self._programs)
            self._seen = token
            self._until = now() + _REST * (now() - started)
        return self._firewall

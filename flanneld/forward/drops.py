"""Tells of dropped packets: the daemon within a second, people once a minute at most.

What the daemon is told is a line of JSON on stdout, ``{"no node": 3}``: by reason, the packets that
were dropped since the line before.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter

_log = logging.getLogger(__name__)

_TELL_S = 1.0  # at least, between two lines to the daemon
_LOG_S = 60.0  # at least, between two lines of the log


class Drops:
    """What was told of ``counted``, which goes on counting; ``fd`` leads to the daemon.

    ``fd`` must not block: a daemon that is stopped gets the sum later.
    """

    def __init__(self, counted: Counter[str], fd: int) -> None:
        self._counted = counted
        self._fd = fd
        self._told: Counter[str] = Counter()
        self._tell_due = self._log_due = 0.0

    def wait(self) -> float | None:
        """Give the seconds until there is something to tell; None if nothing was dropped."""
        if self._counted.total() == self._told.total():
            return None
        return max(0.0, self._tell_due - time.monotonic())

    def tell(self) -> None:
        """Tell what is due.  OSError if the daemon does not listen any more."""
        if self.wait() != 0:
            return
        now = time.monotonic()
        news = self._counted - self._told
        self._tell_due = now + _TELL_S
        try:
            os.write(self._fd, json.dumps(news).encode() + b"\n")  # whole or not: below PIPE_BUF
        except BlockingIOError:
            return
        self._told += news
        if now >= self._log_due:
            self._log_due = now + _LOG_S
            named = {reason.lower().replace(" ", "_"): n for reason, n in self._told.items()}
            _log.warning("packets dropped since the start", extra=named)

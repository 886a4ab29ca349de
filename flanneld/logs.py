"""Log lines for people and machines: ``time level message key=value ...`` on stderr.

What is passed as ``extra={...}`` becomes the pairs; keys are lower case, values quoted if need be.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time

from flanneld.plain import plain

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=]+")


class Formatter(logging.Formatter):
    """A record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write time (UTC), level, message, and the pairs."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.exc_info:
            pairs["trace"] = self.formatException(record.exc_info)
        lines = record.getMessage().splitlines()  # other programs' words have several
        said = " | ".join(map(plain, lines))
        head = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower()} {said}"
        return " ".join([head, *(f"{name}={_quoted(value)}" for name, value in pairs.items())])


def set_up(level: int) -> None:
    """Send all records of a level or above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(max(level, logging.INFO))


def _quoted(value: object) -> str:
    text = plain(str(value))
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)

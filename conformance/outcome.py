"""What a call of a program leaves: exit status, stdout, stderr, and the document of a plugin."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What one call of a program left: exit status (negative: the signal), stdout, stderr."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The printed result of a call that must have succeeded."""
        assert self.status == 0, self
        return self._document()

    @property
    def error(self) -> dict[str, Any]:
        """The printed error of a call that must have failed."""
        assert self.status != 0, self
        return self._document()

    def _document(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict), self
        return document

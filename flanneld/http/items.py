"""A list in JSON, read item by item while it comes: it may be too large to be held.  Pure."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_scan = json.JSONDecoder().raw_decode
_BETWEEN = " \t\r\n,"
_LONGEST = 1 << 24  # characters of one item


class Items:
    """The pages of a list: objects with ``items``, and with ``metadata``, of which the last counts.

    ValueError for what is no such list.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self._text, self._inside = "", False
        self._decode = _decoder()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Take a part of a page; gives the items that are whole now."""
        text, at = self._text + self._decode(chunk), 0
        try:
            while True:
                at = _past(text, at, _BETWEEN if self._inside else _BETWEEN + "{}")
                if at == len(text):
                    break
                if not self._inside:
                    at = self._field(text, at)
                elif text[at] == "]":
                    self._inside, at = False, at + 1
                else:
                    item, at = _scan(text, at)
                    yield item
        except (ValueError, IndexError):  # it goes on in the next part
            if len(text) - at > _LONGEST:
                raise ValueError("an item of the list has no end") from None
        self._text = text[at:]

    def end(self) -> str:
        """Take the end of a page; gives the token of the next, "" if it was the last."""
        if self._text or self._inside or not self.metadata:
            raise ValueError("the list is not whole")
        self._decode = _decoder()
        return str(self.metadata.get("continue") or "")

    def _field(self, text: str, at: int) -> int:
        """Read a key with its value, or up to the first item; gives where it ends."""
        key, at = _scan(text, at)
        at = _past(text, at, _BETWEEN + ":")
        if key == "items" and text[at] == "[":
            self._inside = True
            return at + 1
        value, at = _scan(text, at)
        if key == "metadata":
            self.metadata = value
        return at


def _decoder() -> Callable[[bytes], str]:
    return codecs.getincrementaldecoder("utf-8")().decode


def _past(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at

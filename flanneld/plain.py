"""Other people's words on a terminal or in a log: nothing in them is obeyed.

A lease's fields, a device's alias, a rule's comment are whatever somebody has written: an escape
sequence would move the cursor, a line break forge a line, a mark of direction turn text around.
"""

from __future__ import annotations

_LONGEST = 200


def plain(text: str) -> str:
    r"""Spell each character that is not printed as Python does: ``\x1b``, ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _spelled(one) for one in text)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii", "replace")


def quoted(text: str) -> str:
    """Quote a value that may be of any length: its beginning, and how long it is."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST]
    rest = "" if cut is text else f"... ({len(text)} characters)"
    return f'"{plain(cut)}{rest}"'

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


def quoted(value: object) -> str:
    """Show a value of any kind and length: of a long one the beginning, and how long it is."""
    if not isinstance(value, str | bytes):
        return plain(repr(value)[:_LONGEST])
    cut = value[:_LONGEST]
    shown = cut.decode(errors="replace") if isinstance(cut, bytes) else cut
    unit = "bytes" if isinstance(value, bytes) else "characters"
    rest = "" if len(cut) == len(value) else f"... ({len(value)} {unit})"
    return f'"{plain(shown)}{rest}"'

"""The syntax of Go's package ``flag``, and the environment in its place.

``-x``, ``--x``, ``--x=v`` and ``--x v``; a boolean takes a value only behind ``=``; ``--`` ends the
flags.  A flag that is not on the command line comes from ``FLANNELD_X`` if that is not empty.
Pure: knows no flag by name, prints nothing, does not exit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Value = str | int | bool | tuple[str, ...]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class UsageError(ValueError):
    """The command line or the environment is wrong; ``str`` names the flag and the value."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag: its name, its default, which gives it its type, and a line of help.

    A default that is a tuple makes a flag that may be given several times.  ``refusal`` is why a
    flag of the Go daemon cannot have any value but its default here.
    """

    name: str
    default: Value
    text: str
    refusal: str = ""

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return "FLANNELD_" + self.name.upper().replace("-", "_")


_OF_SERVICES = re.compile(r"(SERVICE_(HOST|PORT)|PORT)(_\w+)?")  # of a Service named flanneld


def mistyped(flags: Iterable[Flag], environ: Mapping[str, str]) -> list[str]:
    """Say which variables look like a flag's and are none, one sentence each.

    The Go daemon ignores them without a word, as it does with those that Kubernetes makes for a
    Service of that name: these are no mistake.
    """
    known = [flag.variable for flag in flags]
    sentences = []
    for name in sorted(environ):
        rest = name.removeprefix("FLANNELD_")
        if rest == name or name in known or _OF_SERVICES.fullmatch(rest):
            continue
        close = get_close_matches(rest, [one.removeprefix("FLANNELD_") for one in known], n=1)
        meant = f": is FLANNELD_{close[0]} meant?" if close else ""
        sentences.append(f"the variable {name} is no flag's, and is ignored{meant}")
    return sentences


def parse(
    flags: Iterable[Flag], argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, Value], list[str]]:
    """Read all flags: their values by name, and the arguments behind them.

    UsageError for an unknown flag, a value of the wrong type, a value that is missing, or one that
    is refused.
    """
    table = {flag.name: flag for flag in flags}
    values: dict[str, Value] = {}
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        flag, value = _split(table, word, rest)
        _store(values, flag, value, f"-{flag.name}")
    for flag in table.values():
        value = environ.get(flag.variable, "")
        if flag.name not in values and value:
            _store(values, flag, value, flag.variable)
    return {name: values.get(name, flag.default) for name, flag in table.items()}, rest


def usage(flags: Iterable[Flag]) -> str:
    """Describe each flag in two lines, as Go does."""
    lines = []
    for flag in flags:
        default = "" if flag.default in ("", (), False) else f" (default {_shown(flag.default)})"
        refusal = f" ({flag.refusal})" if flag.refusal else ""
        lines.append(f"  --{flag.name}\n        {flag.text}{default}{refusal}\n")
    return "".join(lines)


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _split(table: Mapping[str, Flag], word: str, rest: list[str]) -> tuple[Flag, str]:
    """Part a word into its flag and the text of its value, taking the next word if need be."""
    name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
    flag = table.get(name)
    if flag is None:
        close = get_close_matches(name, table, n=1)
        meant = f": did you mean -{close[0]}?" if close else ""
        raise UsageError(f"flag provided but not defined: -{name}{meant}")
    if equals:
        return flag, value
    if isinstance(flag.default, bool):
        return flag, "true"
    if not rest:
        raise UsageError(f"flag needs an argument: -{name}")
    return flag, rest.pop(0)


def _store(values: dict[str, Value], flag: Flag, text: str, source: str) -> None:
    value = _read(flag, text, source)
    if flag.refusal and value != flag.default:
        raise UsageError(f"{source}={text}: {flag.refusal}")
    if isinstance(value, tuple):
        earlier = values.get(flag.name, ())
        value = (*earlier, *value) if isinstance(earlier, tuple) else value
    values[flag.name] = value


def _read(flag: Flag, text: str, source: str) -> Value:
    if isinstance(flag.default, bool):
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise UsageError(f'invalid boolean value "{text}" for {source}: say true or false')
    if isinstance(flag.default, int):
        return _whole(text, source)
    if isinstance(flag.default, tuple):
        return (text,)
    return text


def _whole(text: str, source: str) -> int:
    """Read a whole number; a leading zero makes it octal, as in Go."""
    digits = text.removeprefix("-").removeprefix("+")
    octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
    try:
        return int(text, 8 if octal else 0)
    except ValueError:
        raise UsageError(
            f'invalid value "{text}" for flag {source}: it must be a whole number'
        ) from None

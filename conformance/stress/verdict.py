"""Whether what a plugin printed is as the specification has it: one document, a code of the table.

Source: CNI SPEC 1.1.0, section 5 ("Error"): codes to 99 the specification's, from 100 the plugin's.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.world import Outcome

SPEC_CODES = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51})
PLUGIN_CODES = range(100, 1000)
# Codes of this project's pair; the reference's plugins have none from 100 to 998.
BUG, KERNEL_REFUSED = 100, 101
_VALUE = re.compile(r"[\d/\"]")
_CRASH_MARKS = (
    "Traceback (most recent call last)",
    "panic:",
    "goroutine 1 [",
    "Fatal Python error",
)


def complaints(outcome: Outcome, *, document: bool | None = None) -> list[str]:
    """Tell what is wrong with the form of an outcome; [] when nothing is.

    `document` says whether a success prints one; None is for not knowing.
    """
    found = [f"{mark} on stderr" for mark in _CRASH_MARKS if mark in outcome.stderr]
    if outcome.status not in {0, 1}:
        return [*found, f"exit status {outcome.status}: {brief(outcome)}"]
    if outcome.status == 0:
        return found + _of_success(outcome, document=document)
    return found + _of_error(outcome)


def _of_success(outcome: Outcome, *, document: bool | None) -> list[str]:
    if not outcome.stdout:
        return ["success without a result"] if document else []
    if document is False:
        return [f"output of a verb that prints nothing: {brief(outcome)}"]
    return [] if isinstance(_document(outcome.stdout), dict) else [f"not JSON: {brief(outcome)}"]


def _of_error(outcome: Outcome) -> list[str]:
    error = _document(outcome.stdout)
    if not isinstance(error, dict):
        return [f"an error that is no JSON object: {brief(outcome)}"]
    code, msg = error.get("code"), error.get("msg")
    if type(code) is not int or not (code in SPEC_CODES or code in PLUGIN_CODES):
        return [f"code {code!r} is none of the table: {brief(outcome)}"]
    if not isinstance(msg, str) or not msg:
        return [f"an error without a message: {brief(outcome)}"]
    if "this is a bug" in str(error.get("details", "")):
        return [f"the plugin itself calls it a bug: {brief(outcome)}"]
    return []


def causeless(outcome: Outcome) -> list[str]:
    """Tell whether an error leaves its reader alone: as the answer to an input, none may."""
    error = _document(outcome.stdout)
    if outcome.status == 0 or not isinstance(error, dict):
        return []
    code, msg, details = error.get("code"), str(error.get("msg")), str(error.get("details", ""))
    if code == BUG:
        return [f"a code for bugs: {brief(outcome)}"]
    if "dmesg" in details:
        return [f"the kernel's log instead of a cause: {brief(outcome)}"]
    if code == KERNEL_REFUSED and not _VALUE.search(msg):
        return [f"the kernel has refused nobody knows what: {brief(outcome)}"]
    return []


def code_of(outcome: Outcome) -> int:
    """Return the code of an error document; 0 for anything else."""
    error = _document(outcome.stdout)
    return int(error.get("code", 0)) if outcome.status != 0 and isinstance(error, dict) else 0


def brief(outcome: Outcome) -> str:
    """An outcome on one line."""
    text = " ".join(f"{outcome.stdout} {outcome.stderr}".split())
    return f"[{outcome.status}] {text[:600]}"


def _document(text: str) -> Any:
    """The one JSON document of a text; None if it is not exactly one."""
    try:
        return json.loads(text)
    except ValueError:
        return None

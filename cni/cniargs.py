"""CNI_ARGS: `KEY=value;KEY=value`, the runtime's extra arguments (spec section 2).

Pure. Keys are case-sensitive; unknown ones are an error unless IgnoreUnknown says otherwise.
"""

from __future__ import annotations

from cni.errors import INVALID_ENVIRONMENT, CNIError
from cni.wire import dumps

_SWITCH = "IgnoreUnknown"
_BOOLEAN = {"1": True, "true": True, "0": False, "false": False}


def parse(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Return the known pairs of CNI_ARGS, the last one of a key; CNIError 4 on anything else."""
    values: dict[str, str] = {}
    unknown: list[str] = []
    ignore = False
    for pair in text.split(";") if text else ():
        key, *rest = pair.split("=")
        if len(rest) != 1:
            raise CNIError(
                INVALID_ENVIRONMENT,
                f"ARGS: invalid pair {dumps(pair)}",
                "CNI_ARGS is KEY=value;KEY=value: no `;` at the end, no `=` inside a value",
            )
        if key == _SWITCH:
            ignore = _boolean(rest[0], pair)
        elif key in known:
            values[key] = rest[0]
        else:
            unknown.append(pair)
    if unknown and not ignore:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"ARGS: unknown args [{' '.join(dumps(pair) for pair in unknown)}]",
            f"known here: {', '.join(known) or 'none'}; add IgnoreUnknown=1 to let others pass",
        )
    return values


def _boolean(value: str, pair: str) -> bool:
    found = _BOOLEAN.get(value.lower())
    if found is None:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"ARGS: error parsing value of pair {dumps(pair)}: "
            f"boolean unmarshal error: invalid input {value.lower()}",
        )
    return found

"""``flanneld diff``: the kernel against what is desired."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flanneld.commands import arguments

if TYPE_CHECKING:
    from flanneld.diagnosis.node import View


async def run(argv: list[str]) -> int:
    """Print a line for each difference; 0 if there is none, 1 if there are, 2 if unknown."""
    made = arguments.parser(
        "diff",
        "Compare the kernel and the traffic rules with what is desired: + is missing, - is too"
        " much, ~ has another value, ! has to be made anew, ? cannot be put right.",
        "0 no difference, 1 differences, 2 there is nothing to compare",
    )
    arguments.add_json(made)
    wanted = made.parse_args(argv)
    seen = await arguments.look("diff", wanted.subnet_file)
    if seen is None:
        return arguments.FAILED
    found = lines(seen)
    arguments.show([json.dumps(found)] if wanted.json else found)
    return 1 if found else 0


def lines(seen: View) -> list[str]:
    """Spell all differences, devices first."""
    return [
        *map(str, seen.difference.changes),
        *(f"? {problem}" for problem in seen.difference.problems),
        *(f"? rules: {fault}" for fault in seen.rules),
    ]

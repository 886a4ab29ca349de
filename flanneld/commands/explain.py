"""``flanneld explain A B``: why does pod address A not reach pod address B."""

from __future__ import annotations

import json
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from flanneld.commands import arguments
from flanneld.diagnosis.facts import gather
from flanneld.diagnosis.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.diagnosis.step import Step


async def run(argv: list[str]) -> int:
    """Print the steps; 0 if none is broken, 1 if one is, 2 if that is not known."""
    made = arguments.parser(
        "explain",
        "Follow the way of a packet from a pod's address to another pod's, on this node, to the"
        " first step that is broken.",
        "0 this node does its part, 1 a step is broken, 2 there is nothing to look at",
    )
    arguments.add_json(made)
    made.add_argument("source", metavar="A", type=ip_address, help="address of a pod of this node")
    made.add_argument("target", metavar="B", type=ip_address, help="address of the other pod")
    wanted = made.parse_args(argv)
    if wanted.source.version != wanted.target.version:
        made.error(f"{wanted.source} and {wanted.target} are of two families")
    seen = await arguments.look("explain", wanted.subnet_file)
    if seen is None:
        return arguments.FAILED
    steps = list(walk(gather(seen, wanted.source, wanted.target)))
    is_broken = not steps[-1].is_ok
    if wanted.json:
        arguments.show([json.dumps([asdict(step) for step in steps])])
    else:
        arguments.show(_lines(steps))
        if not is_broken:
            arguments.show([_elsewhere(wanted.source, wanted.target)])
    return 1 if is_broken else 0


def _lines(steps: list[Step]) -> Iterator[str]:
    width = max(len(step.name) for step in steps)
    for step in steps:
        yield f"{'ok  ' if step.is_ok else 'FAIL'}  {step.name.ljust(width)}  {step.found}"
        if step.remedy:
            yield f"{' ' * (width + 8)}{step.remedy}"


def _elsewhere(source: object, target: object) -> str:
    return (
        "This node does its part. On the other node: flanneld explain"
        f" {target} {source}; between them, look whether the backend's UDP port is let through."
    )

"""``flanneld explain A B``: why does address A not reach address B."""

from __future__ import annotations

import json
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from flanneld.commands import arguments
from flanneld.diagnosis.facts import gather
from flanneld.diagnosis.step import Step
from flanneld.diagnosis.walk import walk
from flanneld.firewall import reading
from flanneld.rules.programs import system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.desired import AnyAddress
    from flanneld.diagnosis.node import View
    from flanneld.firewall.chains import Firewall


async def run(argv: list[str]) -> int:
    """Print the steps; 0 if none is broken, 1 if one is, 2 if that is not known."""
    made = arguments.parser(
        "explain",
        "Follow the way of a packet from one address to another and back, through this node, to"
        " the first thing that is in its way. One of them is of a pod of this node, or its own;"
        " the other may be of any pod, node, Service or host.",
        "0 this node does its part, 1 something is in the way, 2 there is nothing to look at",
    )
    arguments.add_json(made)
    made.add_argument("source", metavar="A", type=ip_address, help="where the packet comes from")
    made.add_argument("target", metavar="B", type=ip_address, help="where it is to go")
    wanted = made.parse_args(argv)
    if wanted.source.version != wanted.target.version:
        made.error(f"{wanted.source} and {wanted.target} are of two families")
    seen = await arguments.look("explain", wanted.subnet_file)
    if seen is None:
        return arguments.FAILED
    firewall = await reading.read(system(), translations=True)
    steps = list(_steps(seen, firewall, wanted.source, wanted.target))
    is_broken = not all(step.is_ok for step in steps)
    if wanted.json:
        arguments.show([json.dumps([asdict(step) for step in steps])])
    else:
        arguments.show(_lines(steps))
        if not is_broken:
            arguments.show([_elsewhere(wanted.source, wanted.target)])
    return 1 if is_broken else 0


def _steps(
    seen: View, firewall: Firewall, source: AnyAddress, target: AnyAddress
) -> Iterator[Step]:
    """Walk to the target, or to each endpoint that rules put in its place, to what is broken."""
    facts = gather(seen, firewall, source, target)
    if facts.target.kind == "peer" or not facts.endpoints:
        yield from walk(facts)
        return
    yield Step("service", True, f"{target} is translated to {', '.join(facts.endpoints)}")
    for endpoint in facts.endpoints:
        steps = list(walk(gather(seen, firewall, source, _address(endpoint))))
        yield from steps
        if not all(step.is_ok for step in steps):
            return


def _address(endpoint: str) -> AnyAddress:
    """Read ``10.244.2.7``, ``10.244.2.7:53``, ``[fd44::7]:53``; ValueError."""
    if endpoint.startswith("["):
        return ip_address(endpoint[1:].partition("]")[0])
    return ip_address(endpoint.partition(":")[0] if endpoint.count(":") == 1 else endpoint)


def _lines(steps: list[Step]) -> Iterator[str]:
    width = max(len(step.name) for step in steps)
    for step in steps:
        mark = "?   " if step.name == "unknown" else "ok  " if step.is_ok else "FAIL"
        yield f"{mark}  {step.name.ljust(width)}  {step.found}"
        if step.remedy:
            yield f"{' ' * (width + 8)}{step.remedy}"


def _elsewhere(source: object, target: object) -> str:
    return (
        "This node does its part, as far as it can know. On the other node: flanneld explain"
        f" {target} {source}; between them, look whether the backend's UDP port is let through."
    )

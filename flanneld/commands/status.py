"""``flanneld status``: this node, its lease, and how each peer is reached."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flanneld.commands import arguments
from flanneld.diagnosis.examination import examine
from flanneld.diagnosis.paths import Judge, paths
from flanneld.diagnosis.way import silent
from flanneld.firewall import reading
from flanneld.readiness import stamp
from flanneld.rules.programs import system

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flanneld.diagnosis.examination import Found
    from flanneld.diagnosis.node import View
    from flanneld.diagnosis.paths import PeerPath

_TELLING = ("store", "keys", "conf")  # what these parts warn of: this node may not know all
_HEAD = ("SUBNET", "PUBLIC IP", "TYPE", "LINK", "MTU", "DEVICE", "NEIGHBOUR", "FDB", "ROUTE")


async def run(argv: list[str]) -> int:
    """Print it; 0 if all is as it should be, 1 if not, 2 if that is not known."""
    made = arguments.parser(
        "status",
        "Show this node, its lease, and how each peer is reached.",
        "0 all is as it should be, 1 something is not, 2 there is nothing to look at",
    )
    arguments.add_json(made)
    wanted = made.parse_args(argv)
    seen = await arguments.look("status", wanted.subnet_file)
    if seen is None:
        return arguments.FAILED
    peers = list(paths(seen))
    found = examine(seen.subject, await reading.read(system()))
    if wanted.json:
        arguments.show([json.dumps(document(seen, peers, found))])
    else:
        arguments.show(table(seen, peers, found))
    return 0 if is_healthy(seen, peers, found) else 1


def is_healthy(seen: View, peers: Iterable[PeerPath], found: Found) -> bool:
    """Whether the daemon runs, finds nothing wrong, and every part of every path is right."""
    return (
        seen.answering
        and not any(cause.blocks or cause.part in _TELLING for cause in seen.causes)
        and not found.blocking
        and not seen.difference
        and not seen.rules
        and all(peer.is_ok for peer in peers)
    )


def document(seen: View, peers: Iterable[PeerPath], found: Found) -> dict[str, Any]:
    """Give all of it for programs; times are Unix times in seconds, MTUs bytes."""
    known, judge = seen.state, Judge(seen)
    return {
        "running": seen.running,
        "answering": seen.answering,
        "pid": known.pid,
        "version": known.version,
        "written": known.written,
        "ready": seen.ready,
        "causes": [asdict(cause) for cause in seen.causes],
        "store": known.settings.store,
        "network": _text(known.conf.network),
        "network6": _text(known.conf.network6),
        "backend": known.conf.backend_type,
        "lease": {
            "subnet": _text(known.lease.subnet),
            "subnet6": _text(known.lease.subnet6),
            "expires": known.lease.expires,
        },
        "interface": {
            "name": known.external.name,
            "mtu": known.external.mtu,
            "address": _text(known.external.address),
            "address6": _text(known.external.address6),
            "public_ip": _text(known.external.public_ip),
            "public_ip6": _text(known.external.public_ip6),
        },
        "mtu": seen.mtu,
        "devices": [
            {"name": device.name, "mac": device.mac, "mtu": device.mtu, "state": judge.part(device)}
            for device in sorted(seen.desired.devices, key=str)
        ],
        "peers": [
            {
                "subnet": str(peer.subnet),
                "public_ip": _text(peer.public_ip),
                "type": _type(seen, peer),
                "link": peer.link,
                "mtu": peer.mtu,
                "device": peer.device,
                "neighbour": peer.neighbour,
                "fdb": peer.fdb,
                "route": peer.route,
                "problem": peer.problem,
            }
            for peer in peers
        ],
        "rules": [*seen.rules],
        "differences": [str(change) for change in seen.difference.changes],
        "obstacles": [*seen.difference.problems, *found.blocking],
        "warnings": [*found.others],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


# ------------------------------------------------------------------------------------- the table


def table(seen: View, peers: Sequence[PeerPath], found: Found) -> Iterator[str]:
    """Give all of it for people."""
    yield from _node(seen)
    yield ""
    rows = [_HEAD, *(_row(seen, peer) for peer in peers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if not peers:
        yield "no peers"
    complaints = dict.fromkeys(
        [
            *map(str, seen.causes),
            *_unsaid(seen, (peer.problem for peer in peers if peer.problem)),
            *_unsaid(seen, seen.difference.problems),
            *_unsaid(seen, found.blocking),
            *_unsaid(seen, found.others),
            *(f"rules: {fault}" for fault in seen.rules),
        ]
    )
    if complaints:
        yield ""
        yield from complaints
    if seen.difference.changes:
        yield ""
        yield f"{len(seen.difference.changes)} differences: flanneld diff lists them"


def _unsaid(seen: View, sentences: Iterable[str]) -> Iterator[str]:
    """Leave out what the daemon has said itself, with its time."""
    said = {cause.text for cause in seen.causes}
    return (sentence for sentence in sentences if sentence not in said)


def _node(seen: View) -> Iterator[str]:
    known = seen.state
    outer = known.external
    age = max(0, int(time.time() - known.written))
    if not seen.running:
        daemon = f"not running (pid {known.pid} is gone); what follows is what it knew"
    elif not seen.answering:
        daemon = silent(seen)
    else:
        daemon = f"pid {known.pid}, {'ready' if seen.ready else 'not ready'}"
    networks = [net for net in (known.conf.network, known.conf.network6) if net is not None]
    subnets = [net for net in (known.lease.subnet, known.lease.subnet6) if net is not None]
    expires = "" if known.lease.expires is None else f", expires {stamp(known.lease.expires)}"
    yield f"daemon     {daemon}, last change {age} s ago, version {known.version}"
    if known.settings.store:
        yield f"store      {known.settings.store}"
    yield f"network    {_list(networks)}, backend {known.conf.backend_type}"
    yield f"lease      {_list(subnets)}{expires}"
    yield f"interface  {outer.name} {_list(_pairs(seen))}, MTU {outer.mtu}"
    yield f"pods' MTU  {seen.mtu}"
    judge = Judge(seen)
    for device in sorted(seen.desired.devices, key=str):
        yield f"device     {device.name} {device.mac}, MTU {device.mtu}: {judge.part(device)}"
    yield f"rules      {'ok' if not seen.rules else f'{len(seen.rules)} faults'}"


def _pairs(seen: View) -> Iterator[str]:
    outer = seen.state.external
    pairs = ((outer.address, outer.public_ip), (outer.address6, outer.public_ip6))
    for address, public_ip in pairs:
        if address is not None:
            nat = "" if public_ip in {None, address} else f" (published as {public_ip})"
            yield f"{address}{nat}"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _type(seen: View, peer: PeerPath) -> str:
    """Give a peer's backend: udp and alloc publish none, so there it is the network's own."""
    network = seen.state.conf.backend_type
    return peer.backend_type or (network if network in {"udp", "alloc"} else "")


def _row(seen: View, peer: PeerPath) -> tuple[str, ...]:
    return (
        str(peer.subnet),
        str(peer.public_ip or "-"),
        _type(seen, peer) or "-",
        peer.link or "-",
        str(peer.mtu or "-"),
        peer.device,
        peer.neighbour,
        peer.fdb,
        peer.route,
    )

"""What the API server has told last: a file from which the daemon starts while that is away."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld import files
from flanneld.subnet.kube.nodes import NAMES, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """``written`` is a Unix time in seconds; ``servers`` are addresses and ports."""

    node: str
    written: float
    servers: list[tuple[str, int]]
    nodes: list[Seen]


def save(path: str, node: str, servers: list[Any], nodes: Iterable[Seen]) -> None:
    """Keep it, for the node of this name; what hinders is logged."""
    told = {
        "node": node,
        "written": time.time(),
        "servers": servers,
        "names": NAMES,
        "nodes": [[one.name, one.uid, one.cidrs, one.values] for one in nodes],
    }
    try:
        files.write(path, json.dumps(told, separators=(",", ":")).encode())
    except OSError as error:
        _log.warning("the other nodes are not kept for the next start: %s", error)


def load(path: str) -> Kept | None:
    """Give what was kept; None if nothing was, or it cannot be read."""
    try:
        content = files.read(path)
        if content is None:
            return None
        told = json.loads(content)
        if told["names"] != list(NAMES):
            return None
        nodes = [
            Seen(str(name), str(uid), tuple(map(str, cidrs)), tuple(values))
            for name, uid, cidrs, values in told["nodes"]
        ]
        servers = [(str(host), int(port)) for host, port in told["servers"]]
        return Kept(str(told["node"]), float(told["written"]), servers, nodes)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        _log.warning("what was kept of the other nodes is not used: %r", error)
        return None

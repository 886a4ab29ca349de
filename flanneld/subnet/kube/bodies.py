"""What is written into Kubernetes: bodies of requests.  Pure.

Patches are strategic merges, as the Go daemon's: conditions merge by their type.  Each names the
Node's uid, so that it cannot land on another Node of the same name.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CONDITION, REASON = "NetworkUnavailable", "FlannelIsUp"


def annotate(uid: str, prefix: str, values: Mapping[str, str | None]) -> dict[str, Any]:
    """Change annotations; None takes one away."""
    named = {prefix + name: value for name, value in values.items()}
    return {"metadata": {"uid": uid, "annotations": named}}


def condition(uid: str, now: float) -> dict[str, Any]:
    """Say that the node's network is available; ``now`` is a Unix time in seconds."""
    told = {
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": "Flannel is running on this node",
        "lastTransitionTime": _stamp(now),
        "lastHeartbeatTime": _stamp(now),
    }
    return {"metadata": {"uid": uid}, "status": {"conditions": [told]}}


def waiting(node: str, uid: str, text: str, now: float) -> dict[str, Any]:
    """Make an Event of a Node: what flanneld waits for."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{node}.{int(now * 1e6):x}", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
        "type": "Warning",
        "reason": "FlannelWaiting",
        "message": text[:1024],
        "source": {"component": "flanneld", "host": node},
        "firstTimestamp": _stamp(now),
        "lastTimestamp": _stamp(now),
        "count": 1,
    }


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

"""Whether the packet filter sees what a bridge passes on: the module ``br_netfilter``.

Pods of one node talk through the bridge.  A Service's address is translated by rules on the way
there; without the module the answer comes back untranslated, and the pod does not know it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld.rules.programs import Programs

_SWITCHES = Path("/proc/sys/net/bridge")
_SWITCH = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}
_LOSS = (
    "a pod that reaches a pod of the same node by a Service's address gets no answer "
    "(kube-proxy with iptables or ipvs); pods' own addresses work"
)


async def ensure(
    versions: Iterable[int], programs: Programs, switches: Path = _SWITCHES
) -> list[str]:
    """Load the module if it is missing; say what will not work, one sentence each.

    A switch that is off may be so on purpose: it is told, not turned.
    """
    wanted = [switches / _SWITCH[version] for version in versions]
    attempt = "" if all(path.exists() for path in wanted) else await _load(programs)
    return [sentence for path in wanted if (sentence := _state(path, attempt))]


async def _load(programs: Programs) -> str:
    """Try to load the module; give the answer as a clause for the reader."""
    if not programs.has("modprobe"):
        return " (and modprobe is not installed)"
    done = await programs.run(["modprobe", "br_netfilter"])
    return f" (modprobe br_netfilter: {done.complaint})" if done.status else ""


def _state(path: Path, attempt: str) -> str:
    """Say what is wrong with one switch; empty if nothing is."""
    try:
        value = path.read_text().strip()
    except OSError as error:
        return f"br_netfilter is not loaded: {path}: {error.strerror}{attempt}: {_LOSS}"
    if value == "0":
        return f"{path} is 0: {_LOSS}; set it to 1"
    return ""

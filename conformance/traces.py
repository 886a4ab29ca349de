"""What of a world's state belongs to attachments, and what a call may touch unseen.

`unchanging` drops from a state what moves by itself, or is only bookkeeping; `remains` lists what
attachments have left. A bridge, its address and the switches of forwarding belong to the network,
not to an attachment: they may stay.
"""

from __future__ import annotations

import re
from typing import Any

BOOKKEEPING = re.compile(r"/(lock|last_reserved_ip\.\d+|\.[^/]*)$")
# Chains and tables that all attachments share, once they are there
SHARED = ("table ", "chain ", "type ", "}", "*", "COMMIT", ":")


def unchanging(state: dict[str, Any]) -> dict[str, Any]:
    """Give a state without neighbours, processes and bookkeeping files."""
    spaces = {"host": state["host"], **{f"pod {name}": pod for name, pod in state["pods"].items()}}
    kept = {
        name: {key: value for key, value in space.items() if key != "neighbours"}
        for name, space in spaces.items()
    }
    files = {name: text for name, text in state["files"].items() if not BOOKKEEPING.search(name)}
    return {**kept, "rules": state["rules"], "files": files}


def remains(start: dict[str, Any], state: dict[str, Any], words: set[str]) -> list[str]:
    """List what attachments have left since the start; `words` are their container IDs."""
    old, new = start["host"], state["host"]
    bridges = {name for name, link in new["links"].items() if link.get("kind") == "bridge"}
    vlans = {name for name in new["links"] if name.partition(".")[0] in bridges}
    lines = [
        f"link {name}" for name in new["links"] if name not in {*old["links"], *bridges, *vlans}
    ]
    lines += [
        f"neighbour {entry['dst']} on {entry['dev']} ({entry['state']})"
        for entry in new["neighbours"]
        if entry not in old["neighbours"] and "mac" in entry
    ]
    for pod, space in state["pods"].items():
        links = start["pods"].get(pod, {"links": {"lo": {}}})["links"]
        lines += [f"link {name} in pod {pod}" for name in space["links"] if name not in links]
    lines += [
        f"file {name}"
        for name in state["files"]
        if name not in start["files"]
        and not BOOKKEEPING.search(name)
        and not name.startswith(("/run/given", "/run/test"))
    ]
    return lines + [
        f"rule {line}"
        for line in state["rules"]
        if line not in start["rules"] and _of_attachment(line, words)
    ]


def _of_attachment(line: str, words: set[str]) -> bool:
    if any(word in line for word in words):
        return True
    return "CNI-" in line or (line.startswith("-A") and not line.startswith(SHARED))

"""Answers and states of two sides, made comparable: names and addresses made by chance go.

A host end's name becomes `veth#1` in the order of creation, a MAC that no conf asked for `(a MAC)`;
interface indexes, and what moves by itself, are left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from conformance import results
from conformance.traces import unchanging

if TYPE_CHECKING:
    from conformance.world import Outcome

MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
VETH = re.compile(r"veth[0-9a-f]{8}")
CHANGING = {"index", "peer"}
LENGTH = 200


def normal_answer(outcome: Outcome, asked: str, words: str) -> dict[str, Any]:
    """Give exit status, and result or error; an error's message is `words` if it has them."""
    found: dict[str, Any] = {"status": outcome.status}
    try:
        document = json.loads(outcome.stdout) if outcome.stdout.strip() else {}
    except ValueError:
        return {**found, "stdout": outcome.stdout[:LENGTH]}
    if outcome.status != 0:
        message = document.get("msg", "")
        if words and re.search(words, message, re.MULTILINE):
            message = f"(as expected: {words})"
        found["error"] = {"code": document.get("code"), "msg": message}
        return found
    if "supportedVersions" in document:
        return {**found, "version": document}
    result = results.neutral(document) if document else {}
    text = json.dumps(result)
    return {**found, "result": json.loads(_without_chance(text, asked, _order(text)))}


def normal_state(state: dict[str, Any], asked: str) -> dict[str, Any]:
    """Give the kernel and the files; the packet filter's rules of attachments sorted."""
    kept = unchanging(state)
    del kept["files"]
    files = {
        name: text
        for name, text in unchanging(state)["files"].items()
        if not name.startswith(("/run/given", "/run/plugins", "/run/test", "/var/lib/cni/flannel"))
    }
    whole = {**kept, "files": files, "neighbours": _permanent(state["host"]["neighbours"])}
    whole["rules"] = sorted(kept["rules"])
    for space in whole.values():
        for link in space.get("links", {}).values() if isinstance(space, dict) else ():
            for key in CHANGING & set(link):
                del link[key]
    names = sorted(
        (name for name in state["host"]["links"] if VETH.fullmatch(name)),
        key=list(state["host"]["links"]).index,
    )
    text = _without_chance(json.dumps(whole), asked, names)
    found: dict[str, Any] = json.loads(text)
    return found


def _permanent(neighbours: list[dict[str, Any]]) -> list[str]:
    return [f"{one['dst']} on {one['dev']}" for one in neighbours if "mac" in one]


def _order(text: str) -> list[str]:
    """Give the names of host ends in the order in which they appear."""
    return list(dict.fromkeys(VETH.findall(text)))


def _without_chance(text: str, asked: str, names: list[str]) -> str:
    for position, name in enumerate(names, 1):
        text = text.replace(name, f"veth#{position}")
    return MAC.sub(lambda found: found[0] if found[0] in asked else "(a MAC)", text)

"""SIGKILL before any system call of an ADD or a DEL: nothing half-made, nothing lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLS = (
    *("open", "close", "write", "link", "unlink", "symlink", "utime", "pwrite", "ftruncate"),
    *("mkdir", "listdir", "readlink", "stat", "fstat"),
)
DUAL = [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00::/64"}]]


def killed_at(step: int, call: Callable[[], None]) -> bool:
    """Run `call` in a child that dies before its `step`-th system call; whether it did."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    try:
        left = [step]

        def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            return counted

        for name in CALLS:
            setattr(os, name, wrapped(getattr(os, name)))
        call()
        os._exit(0)
    finally:
        os._exit(1)


def fresh(node: Node) -> None:
    """The first call ever: directories and index are made."""


def filled(node: Node) -> None:
    node.add("c0")
    node.put("last_reserved_ip.0", "10.5.0.254")  # a shorter text comes next
    node.put("10.5.0.2", "")
    node.add("c1")


def changed_by_go(node: Node) -> None:
    node.add("c0")
    node.put("10.5.0.9", "go\r\neth0")


@pytest.mark.parametrize("prepare", [fresh, filled, changed_by_go])
@pytest.mark.parametrize("verb", ["add", "delete"])
def test_killed_anywhere(tmp_path: Path, prepare: Callable[[Node], None], verb: str) -> None:
    for step in range(1, 300):
        node = Node(tmp_path / str(step), ranges=DUAL)
        prepare(node)
        others = {text for text in node.files().values() if text}
        if verb == "delete":
            node.add("x")
            if prepare is changed_by_go:
                node.put("10.5.0.10", "go2\r\neth0")
                others.add("go2\r\neth0")
        if not killed_at(step, lambda node=node: getattr(node, verb)("x")):  # type: ignore[misc]
            break
        look(node, others)
    else:
        pytest.fail("the call never came to its end")
    assert step > 15


def look(node: Node, others: set[str]) -> None:
    """What must hold after a death at any step."""
    assert {text for text in node.files().values() if text} <= others | {"x\r\neth0"}
    if node.leases.exists():
        known = {"lock", "last_reserved_ip.0", "last_reserved_ip.1", *node.files()}
        assert set(os.listdir(node.leases)) <= known
    node.delete("x")
    assert {text for text in node.files().values() if text} == others
    for _ in range(2):
        node.add("x")
        assert sum(text == "x\r\neth0" for text in node.files().values()) == 2
        node.delete("x")
    for text in others:
        node.delete(*text.split("\r\n"))
    assert not any(node.files().values())
    assert node.entries() == {}

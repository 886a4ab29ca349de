"""The runtime's list of plugins: there when pods can work, whole, and told to the runtime."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from flanneld import options
from flanneld.conflist import Conflist
from flanneld.readiness import Readiness

if TYPE_CHECKING:
    from pathlib import Path

CHAIN = json.dumps({"name": "cbr0", "plugins": [{"type": "flannel"}]})


class Node:
    """A node's folders; `keep` is what the daemon does again and again."""

    def __init__(self, root: Path, *flags: str) -> None:
        self.source, self.place = root / "cni-conf.json", root / "net.d/10-flannel.conflist"
        self.target = root / "run/10-flannel.conflist"
        self.readiness = Readiness({}, lambda: None)
        self.source.write_text(CHAIN)
        argv = [f"--subnet-file={root}/run/subnet.env", f"--cni-conflist={self.place}"]
        self.options = options.read([*argv, f"--cni-conflist-from={self.source}", *flags], {})
        self.begin()

    def begin(self) -> None:
        self.conflist = Conflist(self.options, self.readiness)

    def keep(self) -> None:
        async def run() -> None:
            self.conflist.keep()

        asyncio.run(run())

    def block(self, *texts: str) -> None:
        async def run() -> None:
            self.readiness.report("rules", texts)

        asyncio.run(run())

    @property
    def told(self) -> list[str]:
        return [cause.text for cause in self.readiness.causes]


def test_it_is_put_there_when_pods_can_work(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.block("no rules yet")
    node.keep()
    assert not node.place.is_symlink()
    node.block()
    node.keep()
    assert node.place.readlink() == node.target
    assert node.place.read_text() == CHAIN
    assert [file.name for file in node.place.parent.iterdir()] == [node.place.name]


def test_after_a_boot_it_leads_nowhere_until_pods_can_work(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keep()
    node.target.unlink()
    node.begin()
    node.block("no rules yet")
    node.keep()
    assert not node.place.exists()
    node.block()
    node.keep()
    assert node.place.read_text() == CHAIN


def test_the_runtime_is_told_once_by_each_daemon(tmp_path: Path) -> None:
    node = Node(tmp_path)
    seen = []
    for begin in (False, False, True):
        if begin:
            node.begin()  # the one before may have been killed before it told
        node.keep()
        seen.append(node.place.lstat().st_ino)
    assert seen[0] == seen[1] != seen[2]


def test_a_change_is_followed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keep()
    before = node.place.lstat().st_ino
    changed = CHAIN.replace("cbr0", "cbr1")
    node.source.write_text(changed)
    node.keep()
    assert node.place.read_text() == changed
    assert node.place.lstat().st_ino != before


@pytest.mark.parametrize("flags", [(), ("--cni-conflist-link=false",)])
def test_what_is_there_is_replaced(tmp_path: Path, flags: tuple[str, ...]) -> None:
    node = Node(tmp_path, *flags)
    other = tmp_path / "other"
    other.write_text("another's")
    for earlier in ("file", "link"):
        node.place.parent.mkdir(exist_ok=True)
        node.place.unlink(missing_ok=True)
        if earlier == "file":
            node.place.write_text("{}")
        else:
            node.place.symlink_to(other)
        node.begin()
        node.keep()
        assert node.place.read_text() == CHAIN
        assert node.place.is_symlink() == (not flags)
    assert other.read_text() == "another's"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"name": "a"}', '{"plugins": [{"type": "flannel"}]}'),
        *('{"name": "a", "plugins": ' + wrong + "}" for wrong in ("[]", "{}", "[1]", "[{}]")),
        '{"name": "a", "plugins": [{"type": 1}]}',
    ],
)
def test_what_no_runtime_takes_is_not_put_there(tmp_path: Path, text: str) -> None:
    node = Node(tmp_path)
    node.keep()
    node.source.write_text(text)
    node.keep()
    assert node.place.read_text() == CHAIN
    (said,) = node.told
    assert str(node.source) in said
    assert not node.readiness.ready
    node.source.write_text(CHAIN)
    node.keep()
    assert node.told == []


def test_a_file_that_comes_first_is_named(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keep()
    for name in ("05-other.txt", "99-last.conf"):
        (node.place.parent / name).touch()
    node.keep()
    assert node.told == []
    (node.place.parent / "10-containerd-net.conflist").touch()
    node.keep()
    (said,) = node.told
    assert "10-containerd-net.conflist" in said
    assert node.readiness.ready

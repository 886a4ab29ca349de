"""GC of `flannel`: each kind of delegate is asked once, then the files of the dead go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni import errors
from cni.errors import CNIError
from cni_flannel import garbage
from cni_flannel.garbage import stale
from cni_flannel.scratch import Scratch
from tests.unit.fakes import FakePlugin, args
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from pathlib import Path

    from cni.types import Plugin

KEY = "cni.dev/valid-attachments"
CONF: dict[str, Any] = {"name": "cbr0", "type": "bridge", "cniVersion": "1.1.0", "ipam": {"new": 1}}


def attachment(container_id: str, ifname: str = "eth0") -> dict[str, str]:
    return {"containerID": container_id, "ifname": ifname}


class World:
    """State files, and what the delegates were asked."""

    def __init__(self, data_dir: Path, **plugins: FakePlugin) -> None:
        self.data_dir = data_dir
        self.plugins = plugins

    def store(self, container_id: str, ifname: str = "eth0", **conf: object) -> None:
        stored = {"name": "cbr0", "type": "bridge", "cniVersion": "0.3.1", **conf}
        Scratch(str(self.data_dir), str(stored["name"]), container_id, ifname).save(stored)

    def collect(self, **conf: object) -> list[str]:
        """Run GC and name the files that are left."""
        garbage.collect(args({**CONF, **conf}), str(self.data_dir), self._plugin_of)
        return self.files()

    def files(self) -> list[str]:
        return sorted(os.listdir(self.data_dir))

    def _plugin_of(self, conf: dict[str, Any]) -> Plugin:
        return self.plugins[conf["type"]]


def test_files_of_attachments_that_are_not_listed_go(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin())
    for name in ("dead", "alive"):
        world.store(name)
        world.store(name, "net1")
    world.store("foreign", name="other")
    (tmp_path / "useless").write_text("")
    kept = world.collect(**{KEY: [attachment("alive"), attachment("alive", "net1")]})
    assert kept == ["alive", "alive:net1", "foreign", "useless"]


def test_an_empty_list_frees_the_whole_network(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin())
    world.store("a")
    assert world.collect(**{KEY: []}) == []


def test_a_file_that_cannot_be_read_is_told_and_keeps_no_other_from_going(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin())
    world.store("dead")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CNIError) as caught:
        world.collect(**{KEY: []})
    assert caught.value.code == errors.IO_FAILURE
    assert world.plugins["bridge"].verbs == ["GC"]
    assert world.files() == ["folder"]


@pytest.mark.parametrize("conf", [{}, {KEY: None}], ids=["absent", "null"])
def test_without_a_list_no_file_goes_and_the_delegates_are_asked(
    tmp_path: Path, conf: dict[str, Any]
) -> None:
    world = World(tmp_path, bridge=FakePlugin())
    world.store("a")
    assert world.collect(**conf) == ["a"]
    assert world.plugins["bridge"].verbs == ["GC"]


def test_each_kind_of_delegate_is_asked_once_with_what_the_call_says(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin(), ipvlan=FakePlugin())
    world.store("a", type="ipvlan", master="eth1")
    world.store("b", ipam={"old": 1})
    world.store("c")
    listed = [attachment("a")]
    world.collect(**{KEY: listed})
    assert world.plugins["bridge"].calls == [("GC", {**CONF, KEY: listed})]
    stored = {"name": "cbr0", "type": "ipvlan", "master": "eth1"}
    expected = {**stored, "cniVersion": "1.1.0", KEY: listed}
    assert world.plugins["ipvlan"].calls == [("GC", expected)]


def test_the_delegates_of_another_network_are_not_asked(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin(), ipvlan=FakePlugin())
    world.store("x", name="other", type="ipvlan")
    assert world.collect(**{KEY: []}) == ["x"]
    assert world.plugins["ipvlan"].verbs == []


def test_after_a_failure_the_others_are_asked_and_the_files_stay(tmp_path: Path) -> None:
    broken = FakePlugin(GC=CNIError(errors.IO_FAILURE, "disk", "buy one"))
    world = World(tmp_path, bridge=FakePlugin(), ipvlan=broken)
    world.store("a", type="ipvlan")
    with pytest.raises(CNIError) as caught:
        world.collect(**{KEY: []})
    assert (caught.value.code, caught.value.msg) == (errors.IO_FAILURE, "disk")
    assert world.files() == ["a"]
    assert world.plugins["bridge"].verbs == ["GC"]


def test_a_wrong_list_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, bridge=FakePlugin())
    world.store("a")
    with pytest.raises(CNIError) as caught:
        world.collect(**{KEY: [{"containerID": "a"}]})
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert world.files() == ["a"]
    assert world.plugins["bridge"].calls == []


A0, A1, B0 = ("a", "eth0"), ("a", "net1"), ("b", "eth0")
STALE: list[tuple[str, set[tuple[str, str]], set[tuple[str, str]], list[tuple[str, str]]]] = [
    ("nothing", set(), set(), []),
    ("all", {B0, A0}, set(), [A0, B0]),
    ("one interface of two", {A0, A1}, {A0}, [A1]),
    ("eth0 gone, net1 with a file of its own", {A0, A1}, {A1}, [A0]),
    ("perhaps the file that Go's plugin wrote for net1", {A0}, {A1}, []),
    ("of another container", {A0}, {B0}, [A0]),
]


@pytest.mark.parametrize(("stored", "valid", "expected"), named(STALE))
def test_which_states_are_stale(
    stored: set[tuple[str, str]], valid: set[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert stale(stored, valid) == expected

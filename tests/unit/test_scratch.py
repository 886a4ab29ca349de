"""State files: names and text as the Go plugin's, whole or absent, each attachment's its own."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CNIError
from cni_flannel import scratch
from cni_flannel.scratch import Scratch
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from pathlib import Path

CONF = {"name": "cbr0", "type": "bridge", "mtu": 1450}
TEXT = '{"mtu":1450,"name":"cbr0","type":"bridge"}'


def state(data_dir: Path, ifname: str = "eth0", network: str = "cbr0") -> Scratch:
    return Scratch(str(data_dir), network, "c1", ifname)


def test_eth0_has_the_go_plugins_file(tmp_path: Path) -> None:
    state(tmp_path / "new").save(CONF)
    path = tmp_path / "new" / "c1"
    assert path.read_text() == TEXT
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["c1"]


def test_any_other_interface_has_a_file_beside_it(tmp_path: Path) -> None:
    state(tmp_path).save(CONF)
    state(tmp_path, "net1").save({**CONF, "mtu": 9000})
    assert sorted(os.listdir(tmp_path)) == ["c1", "c1:net1"]
    assert state(tmp_path, "net1").load() == {**CONF, "mtu": 9000}
    state(tmp_path, "net1").remove()
    assert state(tmp_path).load() == CONF
    state(tmp_path, "net1").remove()
    assert os.listdir(tmp_path) == ["c1"]


def test_the_go_plugins_file_of_another_interface_is_found(tmp_path: Path) -> None:
    (tmp_path / "c1").write_text(TEXT)
    assert state(tmp_path, "net1").load() == CONF
    assert state(tmp_path, "net1").own() is None


def test_a_file_of_another_network_is_neither_read_nor_removed(tmp_path: Path) -> None:
    state(tmp_path, network="other").save({**CONF, "name": "other"})
    assert state(tmp_path).load() is None
    assert state(tmp_path, "net1").load() is None
    state(tmp_path).remove()
    assert state(tmp_path, network="other").load() == {**CONF, "name": "other"}


USELESS: list[tuple[str, bytes]] = [
    ("0 bytes, as Go leaves it after a power loss", b""),
    ("half", TEXT[:20].encode()),
    ("a list", b"[]"),
    ("not UTF-8", b"\xff\xfe"),
    ("trailing text", TEXT.encode() + b"x"),
    ("without a type", b'{"name":"cbr0"}'),
    ("with a type of a wrong type", b'{"name":"cbr0","type":5}'),
    ("with an empty type", b'{"name":"cbr0","type":""}'),
]


@pytest.mark.parametrize("content", named(USELESS))
def test_a_useless_file_is_absent_and_can_be_replaced_and_removed(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "c1").write_bytes(content)
    assert state(tmp_path).load() is None
    assert scratch.listed(str(tmp_path), []) == []
    state(tmp_path).remove()
    assert os.listdir(tmp_path) == []
    (tmp_path / "c1").write_bytes(content)
    state(tmp_path).save(CONF)
    assert state(tmp_path).load() == CONF


def test_what_a_killed_write_left_goes_with_the_next_call(tmp_path: Path) -> None:
    left = tmp_path / ".c1.tmp"
    left.write_text(TEXT[:7])
    assert scratch.listed(str(tmp_path), []) == []
    state(tmp_path).remove()
    assert not left.exists()
    left.write_text(TEXT + TEXT)
    state(tmp_path).save(CONF)
    assert os.listdir(tmp_path) == ["c1"]
    assert state(tmp_path).load() == CONF


def test_a_temporary_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".c1.tmp").symlink_to(victim)
    with pytest.raises(CNIError):
        state(tmp_path).save(CONF)
    assert victim.read_text() == "precious"


def test_a_missing_directory_is_no_error_but_for_save(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "none", tmp_path / "file"):
        assert state(data_dir).load() is None
        state(data_dir).remove()
        assert scratch.listed(str(data_dir), []) == []
    with pytest.raises(CNIError) as caught:
        state(tmp_path / "file").save(CONF)
    assert caught.value.code == IO_FAILURE
    assert caught.value.msg.startswith(f"write state file {tmp_path}/file/c1: ")
    assert "writable directory" in caught.value.details


def test_a_failed_save_keeps_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state(tmp_path).save(CONF)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CNIError, match="No space left on device"):
        state(tmp_path).save({**CONF, "mtu": 1})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c1"]
    assert state(tmp_path).load() == CONF


def test_a_directory_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "c1").mkdir()
    for call in (state(tmp_path).load, state(tmp_path).remove):
        with pytest.raises(CNIError) as caught:
            call()
        assert caught.value.code == IO_FAILURE
        assert str(tmp_path / "c1") in caught.value.msg


def test_a_configuration_too_deep_to_be_written_is_wrong(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CNIError) as caught:
        state(tmp_path).save({**CONF, "args": deep})
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert os.listdir(tmp_path) == []


def test_the_list_of_states(tmp_path: Path) -> None:
    for ifname in ("eth0", "net1"):
        state(tmp_path, ifname).save(CONF)
    (tmp_path / "broken").write_text("{")
    (tmp_path / ".c2.tmp").write_text(TEXT)
    assert sorted(entry[:2] for entry in scratch.listed(str(tmp_path), [])) == [
        ("c1", "eth0"),
        ("c1", "net1"),
    ]


# -------------------------------------------------------------------------- of two calls at once


def test_a_state_that_another_call_has_written_meanwhile_stays(tmp_path: Path) -> None:
    state(tmp_path).save({**CONF, "mtu": 9000})
    slow = state(tmp_path)
    state(tmp_path).save(CONF)
    slow.remove()
    assert state(tmp_path).own() == CONF
    state(tmp_path).remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", [None, {**CONF, "mtu": 1}])
def test_what_an_add_saved_is_taken_back(tmp_path: Path, before: dict[str, Any] | None) -> None:
    failed = state(tmp_path)
    failed.save(CONF)
    failed.take_back(before)
    assert state(tmp_path).own() == before


@pytest.mark.parametrize("before", [None, {**CONF, "mtu": 1}])
@pytest.mark.parametrize("mtu", [1450, 9000])
def test_a_failed_add_leaves_what_another_one_has_saved(
    tmp_path: Path, before: dict[str, Any] | None, mtu: int
) -> None:
    failed, other = state(tmp_path), state(tmp_path)
    failed.save(CONF)
    other.save({**CONF, "mtu": mtu})
    other.confirm()
    failed.take_back(before)
    assert state(tmp_path).own() == {**CONF, "mtu": mtu}


def test_an_add_whose_state_is_gone_has_been_overtaken(tmp_path: Path) -> None:
    running = state(tmp_path)
    running.save(CONF)
    running.confirm()
    state(tmp_path).remove()
    with pytest.raises(CNIError, match="was removed meanwhile") as caught:
        running.confirm()
    assert caught.value.code == TRY_AGAIN_LATER


def test_a_removal_that_the_system_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state(tmp_path).save(CONF)

    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(CNIError, match=r"(?i)read-only") as caught:
        state(tmp_path).remove()
    assert caught.value.code == IO_FAILURE


def test_a_state_that_cannot_be_looked_at_is_told_and_goes_with_the_next_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Scratch(str(tmp_path), "cbr0", "c1", "eth0")
    state.save({"name": "cbr0", "type": "bridge"})

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as trouble:
        trouble.setattr(os, "lstat", refused)
        state = Scratch(str(tmp_path), "cbr0", "c1", "eth0")
    with pytest.raises(CNIError, match=r"look at state file .*/c1: \[Errno 5\]") as told:
        state.remove()
    assert told.value.code == IO_FAILURE
    assert os.listdir(tmp_path) == ["c1"]
    Scratch(str(tmp_path), "cbr0", "c1", "eth0").remove()
    assert os.listdir(tmp_path) == []

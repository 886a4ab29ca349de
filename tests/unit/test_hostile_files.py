"""Things in the place of the plugins' files: nothing beyond is followed, emptied or waited for."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

import pytest

from cni import skel
from cni.errors import INVALID_NETWORK_CONFIG, IO_FAILURE, CNIError
from cni.types import Args
from cni_flannel import scratch
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import plugin as bridge
from ipam import lease
from ipam.index import Entry, Index
from ipam.store import Store
from netlink import netns

if TYPE_CHECKING:
    from pathlib import Path

OWNER = ("cid", "eth0")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


def args_with(conf: dict[str, object]) -> Args:
    return Args(
        command="ADD",
        container_id="cid",
        netns="/run/netns/x",
        ifname="eth0",
        cni_args="",
        path="/none",
        conf=conf,
        environ={},
        note=print,
    )


def test_round_robin_that_is_a_link_is_not_followed(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "last_reserved_ip.0").symlink_to(secret)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links"):
        lease.overwrite("last_reserved_ip.0", b"10.0.0.2", fd)
    os.close(fd)
    assert secret.read_text() == "secret"


def test_lock_that_is_a_link_makes_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic links"):
        Store.open(str(tmp_path), "net", 0, create=True)
    assert not (tmp_path / "made").exists()


def test_lock_that_is_a_named_pipe_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    os.mkfifo(tmp_path / "net" / "lock")
    opened: list[Store | None] = []
    thread = threading.Thread(
        target=lambda: opened.append(Store.open(str(tmp_path), "net", 0, create=True)), daemon=True
    )
    thread.start()
    thread.join(20)
    (store,) = opened
    assert store is not None
    with store:
        assert store.held(OWNER) == []


@pytest.mark.parametrize("place", [".index", ".index/net"])
def test_index_that_is_a_link_is_not_rebuilt(tmp_path: Path, place: str) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "net").mkdir(parents=True)
    (foreign / "file").write_text("one")
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(foreign)
    with pytest.raises(NotADirectoryError):
        Index(str(tmp_path), "net").rebuild({OWNER: ["10.0.0.2"]})
    assert [file.name for file in sorted(foreign.iterdir())] == ["file", "net"]
    assert not list((foreign / "net").iterdir())


def test_index_entry_that_cannot_be_read_is_not_an_absent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(str(tmp_path), "net")
    os.makedirs(index.path)
    index.write(OWNER, Entry(["10.0.0.2"]))
    assert index.read(("other", "eth0")) is None

    def readlink(_path: str) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(OSError, match="Input/output"):
        index.read(OWNER)


def test_lease_is_released_though_the_index_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "10.0.0.2").write_text("cid\r\neth0")
    with Store.open(str(tmp_path), "net", 0, create=False) as store:  # type: ignore[union-attr]
        assert [str(one) for one in store.held(OWNER)] == ["10.0.0.2"]  # which makes the index

    def readlink(_path: str) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "readlink", readlink)
    with Store.open(str(tmp_path), "net", 0, create=False) as store:  # type: ignore[union-attr]
        assert [str(one) for one in store.held(OWNER)] == ["10.0.0.2"]


def test_state_that_is_a_pipe_does_not_hold_the_call_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cid")
    os.mkfifo(tmp_path / ".cid.tmp")
    state = scratch.Scratch(str(tmp_path), "net", "cid", "eth0")
    assert state.load() is None
    with pytest.raises(CNIError) as caught:
        state.save({"name": "net", "type": "bridge"})
    assert caught.value.code == IO_FAILURE
    state.save({"name": "net", "type": "bridge"})  # the draft's place is free again
    assert state.load() == {"name": "net", "type": "bridge"}


def test_namespace_that_cannot_be_asked_is_not_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ioctl(_fd: int, _request: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(OSError, match="Input/output") as caught:
        netns.open("/proc/self/ns/net")
    assert not isinstance(caught.value, netns.NotANamespace)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("kind", ["flannel", "bridge"])
def test_ipam_that_would_call_itself_is_refused_by_add_and_passed_over_by_del(kind: str) -> None:
    args = args_with({"name": "net", "type": "bridge", "ipam": {"type": kind}})
    with pytest.raises(CNIError, match="without end") as caught:
        bridge_conf.parse(args)
    assert caught.value.code == INVALID_NETWORK_CONFIG
    assert bridge.ipam(bridge_conf.RemovalConf(args.conf).ipam_type) is None


def test_part_of_the_plugin_that_cannot_be_loaded_is_no_bug() -> None:
    class Plugin:
        @staticmethod
        def cmd_status(_args: Args) -> None:
            raise ImportError("No module named 'ipam.pool'", name="ipam.pool")

    environ = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/none"}
    status, output = skel.call(Plugin, environ, b'{"cniVersion":"1.1.0","name":"net"}', print)
    assert status == 1
    assert b'"code": 5' in output
    assert b"ipam.pool" in output

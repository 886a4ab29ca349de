"""Paths that lead a caller elsewhere than the resident process, or where only one may write."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cni_flannel.resident import places
from cni_flannel.resident.protocol import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 0  # as the kernel says of a process in another PID namespace


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[int]:
    """A process in another folder."""
    there = tmp_path / "there"
    there.mkdir()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=there) as process:
        yield process.pid


def is_same(pid: int, conf: Any = None, cni_path: str = "/opt/cni/bin") -> bool:
    try:
        places.require_same(pid, cni_path, b"{" if conf is None else json.dumps(conf).encode())
    except Refused:
        return False
    return True


@pytest.mark.parametrize("key", ["dataDir", "subnetFile", "resolvConf", "DATADIR"])
@pytest.mark.parametrize("shape", [lambda conf: conf, lambda conf: {"a": [{"ipam": conf}]}])
def test_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: int, key: str, shape: Any
) -> None:
    for path in ("leases", "./x/y", "../there/x"):
        monkeypatch.chdir(tmp_path)
        assert not is_same(caller, shape({key: path}))
        assert not is_same(NOBODY, shape({key: path}))
        monkeypatch.chdir(tmp_path / "there")
        assert is_same(caller, shape({key: path}))


def test_a_relative_folder_of_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: int
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_same(caller, {}, "/opt/cni/bin:bin")
    assert is_same(caller, {}, "::/opt/cni/bin:")
    monkeypatch.chdir(tmp_path / "there")
    assert is_same(caller, {}, "/opt/cni/bin:bin")


def test_what_both_see_is_the_same(tmp_path: Path, caller: int) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (str(tmp_path), f"{tmp_path}/not/yet", "/", "", "/dev/null/x", f"{tmp_path}/loop"):
        assert is_same(caller, {"dataDir": path})
        assert is_same(NOBODY, {"dataDir": path})
    assert is_same(caller, {"dataDir": 5, "subnetFile": ["x"], "resolvConf": {"a": "x"}})
    assert is_same(caller, {"dataDir": "a\0b", "type": "relative"})
    assert is_same(caller)  # no JSON


def test_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: int) -> None:
    """Of the caller's root another folder is seen at the same path."""
    real = os.stat

    def stat(path: str, **options: Any) -> os.stat_result:
        return real("/" if path.startswith(f"/proc/{caller}/root") else path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert not is_same(caller, {"dataDir": str(tmp_path)})


def test_only_the_caller_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: int
) -> None:
    def statvfs(path: str) -> os.statvfs_result:
        flags = 0 if path.startswith("/proc/") else os.ST_RDONLY
        return os.statvfs_result((0,) * 8 + (flags, 0))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert not is_same(caller, {"dataDir": str(tmp_path)})

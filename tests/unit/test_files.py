"""Files of others are read with a bound and without waiting; folders are nobody else's to write."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_plain_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"x", b"y" * 200_000):
        path.write_bytes(content)
        assert files.read(str(path)) == content
        fd = os.open(tmp_path, os.O_RDONLY)
        assert files.read("file", dir_fd=fd) == content
        os.close(fd)


def test_a_file_of_the_kernel_does_not_tell_its_size() -> None:
    assert os.stat("/proc/self/mountinfo").st_size == 0
    text = files.read("/proc/self/mountinfo", 1 << 26)
    assert text.splitlines()
    assert text.endswith(b"\n")


def test_what_is_no_plain_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, what in (
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("link", "a device"),
    ):
        with pytest.raises(files.NotPlain, match=f"it is {what}, not a plain file") as caught:
            files.read(str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)
    bound.close()
    with pytest.raises(IsADirectoryError):
        files.read(str(tmp_path))


def test_a_device_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> int:
        raise AssertionError

    (tmp_path / "watchdog").symlink_to("/dev/null")
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(files.NotPlain):
        files.read(str(tmp_path / "watchdog"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(files.NotPlain, match="more than 1048576 bytes") as caught:
        files.read(str(path))
    assert caught.value.errno == errno.EFBIG


def test_a_file_that_tells_no_size_has_a_bound_too() -> None:
    with pytest.raises(files.NotPlain, match="more than 10 bytes"):
        files.read("/proc/self/status", 10)


def test_a_file_that_is_exchanged_for_a_pipe_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    found = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: found)
    assert files.read(str(path)) == b""


@pytest.mark.usefixtures("open_umask")
def test_folders_are_nobody_else_s_to_write(tmp_path: Path) -> None:
    files.make_folder(f"{tmp_path}/a/b/c", 0o700)
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o700]
    (tmp_path / "a").chmod(0o777)
    files.make_folder(f"{tmp_path}/a/b/c", 0o755)  # who made them knows why
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o777
    assert (tmp_path / "a/b/c").stat().st_mode & 0o7777 == 0o700


def test_a_folder_in_whose_place_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_folder(f"{tmp_path}/file", 0o755)
    with pytest.raises(NotADirectoryError):
        files.make_folder(f"{tmp_path}/file/below", 0o755)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(FileExistsError):
        files.make_folder(f"{tmp_path}/nowhere", 0o755)


def test_no_more_than_the_bound_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    read: list[int] = []
    real = os.read

    def watched(fd: int, size: int) -> bytes:
        read.append(size)
        return real(fd, size)

    monkeypatch.setattr(os, "read", watched)
    with pytest.raises(files.NotPlain, match="more than 10 bytes"):
        files.read(str(path), 10)
    assert read == []
    assert files.read(str(path), 11) == b"x" * 11


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    read: list[int] = []

    def endless(_fd: int, size: int) -> bytes:
        read.append(size)
        assert sum(read) < 100, "without end"
        return b"x" * size

    monkeypatch.setattr(os, "read", endless)
    with pytest.raises(files.NotPlain, match="more than 10 bytes"):
        files.read(str(path), 10)
    assert sum(read) <= 11


def test_nothing_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = os.listdir("/proc/self/fd")
    files.read(str(path))

    def broken(*_: Any) -> bytes:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(OSError, match="no") as caught:
        files.read(str(path))
    assert caught.value.filename == str(path)
    assert os.listdir("/proc/self/fd") == before


def test_a_file_of_the_kernel_comes_in_parts() -> None:
    assert len(files.read("/proc/kallsyms", 1 << 26)) > 5000

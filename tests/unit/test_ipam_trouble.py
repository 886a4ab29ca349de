"""Full and failing disks, and a signal at any step: nothing half-made stays."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CNIError, Interrupted
from tests.unit.ipam_node import Node, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_without_files_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def old_kernel(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", path)
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", old_kernel)
    node = Node(tmp_path)
    node.put(".new-lease", "left by SIGKILL")
    node.put("10.5.0.2", "")
    assert [node.add("c1"), node.add("c2")] == [["10.5.0.2"], ["10.5.0.3"]]
    assert node.files() == {"10.5.0.2": "c1\r\neth0", "10.5.0.3": "c2\r\neth0"}


def without_links(monkeypatch: pytest.MonkeyPatch, number: int = errno.EPERM) -> None:
    """Be on a file system such as FAT."""

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", failing)
    monkeypatch.setattr(os, "symlink", failing)


@pytest.mark.parametrize("has_nameless", [True, False], ids=["O_TMPFILE", "no O_TMPFILE"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOENT])
def test_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, has_nameless: bool
) -> None:
    """Nor symbolic ones, so without an index."""
    without_links(monkeypatch, number)
    if not has_nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_EXCL)
    node = Node(tmp_path)
    node.put("10.5.0.2", "somebody\r\neth0")
    node.put("10.5.0.3", "")
    assert [node.add("c1"), node.add("c2")] == [["10.5.0.3"], ["10.5.0.4"]]
    assert node.add("c3", environ={"CNI_FLANNEL_CALL": f"0123-{10**18}"}) == ["10.5.0.5"]
    refused(103, node.add, "c4", runtimeConfig={"ips": ["10.5.0.4"]})
    assert node.files() == {
        "10.5.0.2": "somebody\r\neth0",
        "10.5.0.3": "c1\r\neth0",
        "10.5.0.4": "c2\r\neth0",
        "10.5.0.5": "c3\r\neth0",
    }
    node.check("c1")
    node.delete("c1")
    assert "10.5.0.3" not in node.files()


@pytest.mark.parametrize("call", ["open", "write", "link", "pwrite"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_disk_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    node = Node(tmp_path)
    node.add("c1")
    before = node.files()
    real = getattr(os, call)

    def failing(*args: Any, **more: Any) -> Any:
        if call == "open" and not args[1] & (os.O_WRONLY | os.O_CREAT):
            return real(*args, **more)
        raise OSError(number, os.strerror(number), args[0] if isinstance(args[0], str) else None)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(CNIError) as caught:
        node.add("c2")
    monkeypatch.undo()
    assert caught.value.code == 5
    assert str(node.leases) in caught.value.msg
    assert os.strerror(number).lower() in caught.value.msg
    assert caught.value.details
    assert node.files() == before
    node.delete("c2")
    node.delete("c1")
    assert node.files() == {}


def test_a_last_reserved_ip_that_was_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.put("last_reserved_ip.0", "10.5.0.254")

    def failing(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", failing)
    with pytest.raises(CNIError):
        node.add("c1")
    monkeypatch.undo()
    assert (node.leases / "last_reserved_ip.0").read_bytes() == b"10.5.0.2\0\0"
    assert node.add("c2") == ["10.5.0.3"]
    assert (node.leases / "last_reserved_ip.0").read_bytes() == b"10.5.0.3"


def test_half_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    monkeypatch.setattr(os, "write", lambda *_: 2)
    with pytest.raises(CNIError, match="no space left"):
        node.add()
    assert node.files() == {}


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.data_dir.mkdir()
    node.leases.write_text("x")
    with pytest.raises(CNIError) as caught:
        node.add()
    assert caught.value.code == 5
    assert "not a directory" in caught.value.msg
    node.delete()


@pytest.mark.parametrize(
    ("data_dir", "causes"),
    [
        ("/dev/null/x", ("not a directory",)),
        ("loop/below", ("too many levels of symbolic links",)),
        ("loop", ("too many levels of symbolic links",)),
        ("dangling", ("file exists", "it does not exist")),
    ],
)
def test_a_place_where_there_can_be_no_leases(
    tmp_path: Path, data_dir: str, causes: tuple[str, ...]
) -> None:
    """STATUS foresees what ADD would say; DEL finds nothing there, and succeeds."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    node = Node(tmp_path)
    ipam = {"dataDir": str(tmp_path / data_dir)}
    for error in (refused(5, node.add, ipam=ipam), refused(50, node.status, ipam=ipam)):
        assert error.msg.endswith(causes)
        assert "ipam.dataDir" in error.details or "as root" in error.details
    node.delete(ipam=ipam)


@pytest.mark.parametrize("data_dir", ["/proc/self", "/proc/tty"])  # one has a folder "net"
def test_a_place_where_no_file_can_be_made(tmp_path: Path, data_dir: str) -> None:
    """The kernel says that it is not there; nobody tries for ever."""
    node = Node(tmp_path)
    error = refused(5, node.add, ipam={"dataDir": data_dir})
    assert f"{data_dir}/net" in error.msg
    node.delete(ipam={"dataDir": data_dir})


def test_status_on_a_file_system_that_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.status()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert (
        refused(50, node.status).msg == f"could not lease an address: {tmp_path}: permission denied"
    )
    found = os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 0))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert refused(50, node.status).msg.endswith(f"{tmp_path}: read-only file system")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with pytest.raises(CNIError) as caught:
        node.add(name="n" * 300)
    assert caught.value.code == 7
    node.delete(name="n" * 300)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_del_that_fails_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    node = Node(tmp_path)
    node.add()

    def failing(path: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(CNIError) as caught:
        node.delete()
    assert caught.value.code == 5
    assert str(node.leases / "10.5.0.2") in caught.value.msg
    monkeypatch.undo()
    node.delete()
    assert node.files() == {}


# ------------------------------------------------------------------------------- interrupts

STEPS = ("open", "write", "link", "unlink", "symlink", "utime", "pwrite", "stat", "mkdir", "rename")


class Steps:
    """Counts the system calls of the store and stops at one of them, before or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.count = 0
        self.at = at
        self.after = after
        for name in (*STEPS, "close") if after else STEPS:  # one that is not closed keeps the lock
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, counted."""

        def step(*args: Any, **more: Any) -> Any:
            self.count += 1
            here = self.count == self.at
            if here and not self.after:
                raise Interrupted(signal.SIGTERM)
            value = real(*args, **more)
            if here:
                raise Interrupted(signal.SIGTERM)
            return value

        return step


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_interrupted_anywhere_no_lease_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool, links: bool
) -> None:
    if not links:
        without_links(monkeypatch)
    dual = [[{"subnet": "10.5.0.0/24"}], [{"subnet": "fd00::/64"}]]
    for at in range(1, 200):
        node = Node(tmp_path / str(at), ranges=dual)
        node.add("c1")
        node.put("10.5.0.3", "")
        with pytest.MonkeyPatch.context() as patch:
            Steps(patch, at, after=after)
            try:
                node.add("c2")
            except Interrupted:
                pass
            else:
                break
        assert "c2\r\neth0" not in node.files().values(), at
        node.delete("c2")
        assert "c2\r\neth0" not in node.files().values()
        assert node.add("c3")
    else:
        pytest.fail("never came to its end")


def test_gc_goes_on_where_one_lease_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    for container_id in ("c1", "c2", "c3"):
        node.add(container_id)
    real = os.open

    def failing(path: Any, *args: Any, **more: Any) -> int:
        if path == "10.5.0.3":
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(CNIError) as caught:
        node.gc(("c3", "eth0"))
    monkeypatch.undo()
    assert (caught.value.code, sorted(node.files())) == (5, ["10.5.0.3", "10.5.0.4"])
    assert f"{node.leases}/10.5.0.3: input/output error" in caught.value.msg


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupt_takes_no_other_pod_s_lease(tmp_path: Path, *, after: bool) -> None:
    """It comes while taken addresses are tried, whose holders have them since long."""
    for at in range(1, 100):
        node = Node(tmp_path / str(at))
        node.put("last_reserved_ip.0", "10.5.0.1")
        for name, content in TAKEN.items():
            node.put(name, content)
        with pytest.MonkeyPatch.context() as patch:
            Steps(patch, at, after=after)
            try:
                node.add("c9")
            except Interrupted:
                pass
            else:
                break
        assert node.files() == TAKEN, at
    else:
        pytest.fail("never came to its end")


TAKEN = {f"10.5.0.{n}": f"c{n}\r\neth0" for n in range(2, 6)}


def test_the_index_gives_its_inodes_for_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many leases as files fit, and what was leased before is known all the same."""
    node = Node(tmp_path)
    node.add("c1")
    real = os.open

    def failing(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_WRONLY and node.index.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", failing)
    assert node.add("c2") == ["10.5.0.3"]
    assert not node.index.parent.exists()
    assert node.add("c3") == ["10.5.0.4"]
    refused(103, node.add, "c2")
    node.delete("c1")
    assert node.files() == {"10.5.0.3": "c2\r\neth0", "10.5.0.4": "c3\r\neth0"}

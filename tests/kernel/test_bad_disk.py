"""Disks that are full or read-only, files that are broken, a lock that is not given back."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attachments import (
    LEASES,
    STATE,
    add,
    address_of,
    call,
    conf_with,
    delete,
    leases,
    locked,
    must_add,
    ping,
    refused,
    remains,
    running,
    states,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import Node

POOL = f"{LEASES}/cbr0"


@pytest.fixture(autouse=True)
def _node_with_a_pod(node: Node) -> None:
    """Attach a pod, so that there is something to lose, and make an empty one."""
    node.write_subnet_env()
    must_add(node, "old")
    node.add_pod("a")


def make_read_only(node: Node, directory: str) -> None:
    node.run(["mount", "--bind", directory, directory])
    node.run(["mount", "-o", "remount,bind,ro", directory])


@pytest.mark.parametrize("directory", [STATE, POOL])
def test_read_only_directory(node: Node, directory: str) -> None:
    make_read_only(node, directory)
    error = refused(node)
    assert error["code"] == 5
    assert directory in error["msg"]
    assert "read-only file system" in error["msg"].lower()
    assert "writable" in error["details"]
    node.run(["umount", directory])
    assert add(node).status == 0


def test_read_only_directory_at_del(node: Node) -> None:
    make_read_only(node, STATE)
    error = call(node, "DEL", "old").error
    assert error["code"] == 5
    assert f"{STATE}/cid-old" in error["msg"]
    node.run(["umount", STATE])
    delete(node, "old")
    assert remains(node).keys() <= {"neighbours"}


@pytest.mark.parametrize("directory", [STATE, LEASES])
@pytest.mark.parametrize("lack", ["blocks", "inodes"])
def test_disk_is_full(node: Node, directory: str, lack: str) -> None:
    """A small file system; what can be written before it is full is taken back."""
    size = "size=4k" if lack == "blocks" else "nr_inodes=8"
    node.run(["mount", "-t", "tmpfs", "-o", size, "small", directory])
    filler = f"{directory}/filler"
    node.path(filler).mkdir()
    if lack == "blocks":
        node.run(["dd", "if=/dev/zero", f"of={filler}/zero", "bs=4k"], check=False)
    else:
        node.run(["sh", "-c", f"cd {filler}; while : >$((n += 1)); do :; done"], check=False)
    before = {name for name in node.files(directory) if not name.startswith("filler")}
    links = set(node.links())
    done = add(node)
    error = done.error
    assert error["code"] == 5, error
    assert directory in error["msg"]
    assert "no space left on device" in error["msg"].lower()
    assert "space" in error["details"]
    assert set(node.links()) == links
    after = {name for name in node.files(directory) if not name.startswith("filler")}
    assert {name for name in after - before if not name.endswith("/lock")} == set()
    node.run(["umount", directory])
    assert list(states(node)) == ["cid-old"]
    assert leases(node) == {"10.244.1.2": "cid-old\r\neth0"}


def test_data_directory_is_a_file(node: Node) -> None:
    node.write("/run/file", "")
    error = refused(node, conf=conf_with(dataDir="/run/file"))
    assert error["code"] == 5
    assert "/run/file" in error["msg"]


def test_lease_directory_is_a_file(node: Node) -> None:
    node.write("/run/file", "")
    error = refused(node, conf=conf_with(ipam={"dataDir": "/run/file"}))
    assert error["code"] == 5
    assert "/run/file" in error["msg"]


def test_subnet_file_is_a_directory(node: Node) -> None:
    error = refused(node, conf=conf_with(subnetFile="/run/flannel"))
    assert error["code"] == 5
    assert "/run/flannel" in error["msg"]


# ------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"x" * 5000, b"a/b\r\neth0", b"a b c", b" "], ids=ascii
)
def test_corrupt_lease_is_kept_and_passed_over(node: Node, content: bytes) -> None:
    node.write(f"{POOL}/10.244.1.3", content)
    assert address_of(add(node)) == "10.244.1.4"
    delete(node)
    assert node.files(POOL)["10.244.1.3"] == content


def test_lease_that_is_a_directory_is_passed_over(node: Node) -> None:
    node.path(f"{POOL}/10.244.1.3").mkdir()
    assert address_of(add(node)) == "10.244.1.4"
    delete(node)
    assert node.path(f"{POOL}/10.244.1.3").is_dir()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"10.244.1.2\n", b"fd00::1", b"\xff"])
def test_corrupt_last_address_is_written_anew(node: Node, content: bytes) -> None:
    node.write(f"{POOL}/last_reserved_ip.0", content)
    assert address_of(add(node)) == "10.244.1.3"
    assert node.files(POOL)["last_reserved_ip.0"] == b"10.244.1.3"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name":"cbr0"}', b"\xff"])
def test_corrupt_state_does_not_keep_del_from_working(node: Node, content: bytes) -> None:
    node.write(f"{STATE}/cid-old", content)
    done = call(node, "DEL", "old")
    if content == b'{"name":"cbr0"}':
        assert done.status == 0 or "type" in done.error["msg"]
    else:
        assert done.status == 0, done
        assert remains(node).keys() <= {"neighbours"}


# ----------------------------------------------------------------------------------------- the lock

SHORT = conf_with(ipam={"lockTimeout": 0.2})


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_lock_held_by_a_stopped_process(node: Node, command: str) -> None:
    """The error names the process; nothing is lost, and later all is well."""
    pod = "a" if command == "ADD" else "old"
    if command == "DEL":  # it remembers the timeout of its ADD
        delete(node, "old")
        must_add(node, "old", conf=SHORT)
    with locked(node, f"{POOL}/lock") as holder:
        holder.send_signal(signal.SIGSTOP)
        assert until(lambda: is_stopped(holder.pid))
        error = call(node, command, pod, conf=SHORT).error
        assert error["code"] == 11
        assert f"{POOL}/lock" in error["msg"]
        assert f"process {holder.pid} (sleep, stopped)" in error["msg"]
        holder.send_signal(signal.SIGCONT)
    assert call(node, command, pod, conf=SHORT).status == 0
    if command == "ADD":
        assert ping(node, "a", "10.244.1.1")
    else:
        assert remains(node).keys() <= {"neighbours"}


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_lock_that_is_given_back_in_time(node: Node) -> None:
    lock = f"{POOL}/lock"
    with locked(node, lock) as holder, running(node, "sh", "-c", f"sleep 0.3; kill {holder.pid}"):
        must_add(node, conf=conf_with(ipam={"lockTimeout": 30}))


def test_lock_file_is_never_removed(node: Node) -> None:
    inode = os.stat(node.path(f"{POOL}/lock")).st_ino
    must_add(node)
    delete(node)
    delete(node, "old")
    assert os.stat(node.path(f"{POOL}/lock")).st_ino == inode


def test_file_system_without_links(node: Node, plugins: Path) -> None:
    """FAT has neither hard nor symbolic ones: linkat(2) and symlink(2) say EPERM."""
    inject = "-e inject=linkat,link,symlink,symlinkat:error=EPERM"
    script = f'#!/bin/sh\nexec strace -f -qq -o /dev/null {inject} "{plugins}/flannel" "$@"\n'
    plugin = node.write("/run/given/flannel", script)
    node.path(plugin).chmod(0o755)
    found = [must_add(node, pod, plugin=plugin)["ips"][0]["address"] for pod in ("a", "b")]
    assert found == ["10.244.1.3/24", "10.244.1.4/24"]
    assert leases(node)["10.244.1.4"] == "cid-b\r\neth0"
    assert call(node, "DEL", "a", plugin=plugin).status == 0
    assert sorted(leases(node)) == ["10.244.1.2", "10.244.1.4"]
    assert address_of(add(node, "c")) == "10.244.1.5"  # where there are links again


def test_the_last_inodes_are_for_leases(node: Node) -> None:
    """The index takes none that a lease needs: as many pods as with the reference plugin."""
    node.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=7", "small", LEASES])
    conf = conf_with(type="host-local", ipam={"ranges": [[{"subnet": "10.5.0.0/24"}]]})
    done = [call(node, "ADD", pod, conf=conf, plugin="host-local") for pod in "abcd"]
    # the file system itself, the network's folder, its lock, the last address: three are left
    assert [one.status for one in done] == [0, 0, 0, 1]
    assert done[3].error["code"] == 5
    assert "no space left on device" in done[3].error["msg"]
    assert call(node, "DEL", "a", conf=conf, plugin="host-local").status == 0
    assert add(node, "d", conf=conf, plugin="host-local").status == 0

"""Who is provably gone. In doubt a holder lives."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from cni.attachment import Attachment
from cni.netns import identity as identity_of
from ipam import witness as module
from ipam.index import Entry
from ipam.witness import Witness, boot_time
from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from pathlib import Path

OWNER = ("c1", "eth0")
OWN = "/proc/self/ns/net"
OLD = "the lease is older than this boot"
LONG_AGO = 1000.0


class World:
    """A results cache, a place for a namespace, and what a witness says of them.

    The machine is a made-up one: init, which is sealed off, and a process in our own namespace.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.results = base / "results"
        self.results.mkdir()
        self.netns = base / "netns"
        self.now = time.time()
        self.proc = base / "proc"
        (self.proc / "1").mkdir(parents=True)
        for pid in ("self", "7"):
            self.process(pid)
        (self.proc / "self" / "mountinfo").write_text("")

    def process(self, pid: str, netns: str = OWN) -> None:
        """Start one, in a namespace."""
        (self.proc / pid / "ns").mkdir(parents=True)
        (self.proc / pid / "ns" / "net").symlink_to(netns)

    def witness(self) -> Witness:
        return Witness("net", str(self.results), proc=str(self.proc), run_dir=str(self.base))

    def cache(self, netns: str, owner: tuple[str, str] = OWNER) -> None:
        """Write libcni's cache file of an attachment, whose interface was in the namespace."""
        result = {"interfaces": [{"name": "cni0"}, {"name": owner[1], "sandbox": netns}]}
        text = json.dumps({"kind": "cniCacheV1", "netns": netns, "result": result})
        (self.results / f"net-{owner[0]}-{owner[1]}").write_text(text)

    def proof(
        self,
        entry: Entry | None = None,
        owner: tuple[str, str] | None = OWNER,
        mtime: float | None = None,
    ) -> str:
        """Return why the owner is gone; the lease is new unless `mtime` says otherwise."""
        then = self.now if mtime is None else mtime
        return self.witness().proof_of_death(owner, then, entry)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_known(world: World) -> None:
    assert world.proof() == ""
    assert world.proof(Entry(["10.5.0.2"])) == ""
    assert world.proof(owner=None) == ""


def test_older_than_this_boot(world: World) -> None:
    assert world.proof(mtime=LONG_AGO) == OLD
    assert world.proof(owner=None, mtime=LONG_AGO) == OLD
    assert world.proof(owner=("c1", ""), mtime=LONG_AGO) == OLD


def test_a_recorded_namespace(world: World) -> None:
    world.netns.symlink_to(OWN)
    entry = Entry([], identity_of(OWN), str(world.netns))
    assert world.proof(entry) == ""
    assert world.proof(entry, mtime=LONG_AGO) == ""
    world.netns.unlink()
    assert world.proof(entry) == ""  # this process is still in it
    dead = Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))
    assert world.proof(dead) == f"its network namespace {world.netns} is gone"
    world.netns.write_text("a plain file, left when the mount went")
    assert world.proof(dead) == f"its network namespace {world.netns} is gone"


def test_another_namespace_at_the_recorded_path(world: World) -> None:
    world.netns.symlink_to(OWN)
    assert world.proof(Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))) != ""


def test_a_number_that_another_container_s_namespace_has_by_now(world: World) -> None:
    entry = Entry([], identity_of(OWN), "/proc/99999999/ns/net")
    witness = world.witness()
    for container_id, path, identity in (
        (OWNER[0], OWN, ""),  # the same container, by another path
        ("c2", "/nowhere", ""),
        ("c2", OWN, "4:1"),  # was in an earlier one, and is not at its path any more
    ):
        other = world.witness()
        other.place(container_id, path, identity)
        assert other.proof_of_death(OWNER, world.now, entry) == ""
    witness.place("c2", OWN)
    assert witness.proof_of_death(OWNER, world.now, entry) != ""


def test_what_gos_plugins_attached(world: World) -> None:
    world.cache(str(world.netns))
    assert world.proof() == f"its network namespace {world.netns} is gone"
    world.netns.symlink_to(OWN)
    assert world.proof() == ""
    assert world.proof(mtime=LONG_AGO) == ""


def test_what_never_was_a_namespace_proves_nothing(world: World) -> None:
    """Neither a path that led nowhere at ADD, nor one that led to something else."""
    null = os.stat("/dev/null")
    for path, seen in (
        ("/dev/null", f"{null.st_dev}:{null.st_ino}"),  # as earlier versions wrote it
        ("/dev/null", ""),
        ("/run/nobody/x", ""),
        ("/proc/self/ns/mnt", identity_of("/proc/self/ns/mnt")),
    ):
        world.cache(path)
        (world.results / "net-c1-eth0").write_text(json.dumps({"netns": path}))
        assert world.proof(Entry([], seen, path)) == ""
        assert world.proof() == ""
    assert identity_of("/proc/self/ns/mnt") == identity_of("/dev/null") == ""
    assert identity_of("/run/nobody/x") == identity_of("") == ""


@pytest.mark.parametrize(
    "result",
    [None, [], {"ips": []}, {"interfaces": 5}, {"interfaces": [1, {"name": "cni0"}]}],
)
def test_a_cached_path_counts_if_a_plugin_has_been_inside(world: World, result: object) -> None:
    world.cache(str(world.netns))
    assert world.proof() == f"its network namespace {world.netns} is gone"
    text = json.dumps({"netns": str(world.netns), "result": result})
    (world.results / "net-c1-eth0").write_text(text)
    assert world.proof() == ""


def test_a_file_that_a_namespace_has_left_at_its_path_is_none(world: World) -> None:
    """Where `ip netns del` could only unmount it."""
    world.cache(str(world.netns))
    world.netns.touch()
    assert world.proof() == f"its network namespace {world.netns} is gone"


def test_a_path_that_may_not_be_looked_at_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cache(str(world.netns))
    stat = os.stat

    def guarded(path: str, **more: bool) -> os.stat_result:
        if path == str(world.netns):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", guarded)
    assert world.proof() == ""


def test_a_process_that_is_gone_proves_nothing(world: World) -> None:
    world.cache("/proc/99999999/ns/net")
    assert world.proof() == ""
    assert world.proof(mtime=LONG_AGO) == OLD


def test_the_old_format_asks_every_interface(world: World) -> None:
    old = ("c1", "")
    assert world.proof(owner=old) == ""
    world.cache(str(world.netns), ("c1", "net7"))
    world.cache(OWN, ("c1", "net8"))
    assert world.proof(owner=old, mtime=LONG_AGO) == ""
    world.cache(str(world.netns), ("c1", "net8"))
    assert world.proof(owner=old) != ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"netns": 5}', '{"netns": ""}', "\xff"])
def test_a_broken_cache_file_says_nothing(world: World, text: str) -> None:
    (world.results / "net-c1-eth0").write_text(text)
    assert world.proof() == ""


def test_a_living_veth_outweighs_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    living = {Attachment("net", *OWNER).host_veth_name(1)}
    monkeypatch.setattr(module, "_is_link", lambda name: name in living)
    world.cache(str(world.netns))
    assert world.proof(mtime=LONG_AGO) == ""
    assert world.proof(owner=("c2", "eth0"), mtime=LONG_AGO) == OLD


def test_is_link() -> None:
    assert module._is_link("lo")
    assert not module._is_link("no-such-link")


@pytest.mark.parametrize("sealed", ["self", "7"])
def test_not_allowed_to_look(world: World, monkeypatch: pytest.MonkeyPatch, sealed: str) -> None:
    entry = Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))
    stat = os.stat

    def guarded(path: str, **more: bool) -> os.stat_result:
        if str(path).endswith(f"/{sealed}/ns/net"):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    assert world.proof(entry) != ""
    monkeypatch.setattr(os, "stat", guarded)
    world.netns.write_text("no namespace")
    assert world.proof(entry) == ""


def test_a_process_that_ends_while_it_is_looked_at_is_in_no_namespace(world: World) -> None:
    world.process("8", "/nowhere")
    assert world.proof(Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))) != ""


def test_a_process_that_ends_this_very_moment_is_no_sealed_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says EACCES of it, as of one that may not be looked at."""
    world.process("8")
    stat = os.stat

    def ending(path: str, **more: bool) -> os.stat_result:
        if str(path).endswith("/8/ns/net"):
            shutil.rmtree(world.proc / "8")
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", ending)
    assert world.proof(Entry([], f"{stat(OWN).st_dev}:1", str(world.netns))) != ""
    assert not (world.proc / "8").exists()


def test_a_mount_keeps_a_namespace(world: World) -> None:
    entry = Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))
    mounts = "512 24 0:4 net:[{}] /run/netns/x rw shared:9 - nsfs nsfs rw\n"
    (world.proc / "self" / "mountinfo").write_text(mounts.format(2))
    assert world.proof(entry) != ""
    (world.proc / "self" / "mountinfo").write_text(mounts.format(2) + mounts.format(1))
    assert world.proof(entry) == ""


def test_no_list_of_mounts_proves_nothing(world: World) -> None:
    (world.proc / "self" / "mountinfo").unlink()
    assert world.proof(Entry([], f"{os.stat(OWN).st_dev}:1", str(world.netns))) == ""


def test_a_clock_that_was_set_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_time("/nowhere") < time.time()
    monkeypatch.setattr(time, "clock_gettime", lambda _: 0.0)  # "booted now", says the clock
    (tmp_path / "older").touch()
    oldest = os.lstat(tmp_path / "older").st_ctime
    assert boot_time(str(tmp_path)) > oldest - 5  # a folder of a disk outlives a boot
    stat = os.stat

    def elsewhere(path: str) -> os.stat_result:
        return stat("/proc" if path.endswith("/..") else path)

    monkeypatch.setattr(os, "stat", elsewhere)
    assert boot_time(str(tmp_path)) == oldest - 5


# -------------------------------------------------------------------------- the full pool


def test_a_full_pool_heals_itself(tmp_path: Path) -> None:
    dual = [[{"subnet": "10.5.0.0/29"}], [{"subnet": "fd00::/64"}]]
    node = Node(tmp_path, ranges=dual)
    netns = tmp_path / "netns"
    netns.symlink_to(OWN)
    for n in range(3):
        node.add(f"living{n}", netns=str(netns))
    node.add("dead", netns=OWN)
    node.add("dead", "net1", netns=OWN)
    for name in ("10.5.0.5", "fd00::5"):
        os.utime(node.leases / name, (LONG_AGO, LONG_AGO))
    gone = f"10.5.0.5,fd00::5 {os.stat(OWN).st_dev}:1 {tmp_path}/gone"
    (node.index / "dead:eth0").unlink()
    (node.index / "dead:eth0").symlink_to(gone)
    assert node.add("new") == ["10.5.0.5", "fd00::7"]
    assert node.notes == ["took back 10.5.0.5, fd00::5 from dead eth0: " + OLD]
    assert sorted(set(node.files().values())) == sorted(
        ["living0\r\neth0", "living1\r\neth0", "living2\r\neth0", "dead\r\nnet1", "new\r\neth0"]
    )


def test_a_full_pool_after_a_reboot(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for n in range(2, 255):
        node.put(f"10.5.0.{n}", f"c{n}\r\neth0", age_s=366 * 86400.0)
    node.status()
    assert node.add("new") == ["10.5.0.2"]
    assert len(node.notes) == 253
    assert node.files() == {"10.5.0.2": "new\r\neth0"}

"""Many processes at once on one folder, Go's plugin among them: no address twice, none lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import POOL_EXHAUSTED, CNIError
from tests.unit.ipam_node import Node

if TYPE_CHECKING:
    from collections.abc import Callable

GO = Path("/usr/lib/cni/host-local")
RANGES: list[Any] = [
    [{"subnet": "10.5.0.0/26"}],
    [{"subnet": "fd00::/120"}],
]  # 61 addresses in set 0


def in_children(count: int, work: Callable[[int], None]) -> None:
    """Run `work(n)` in that many processes at once; every one of them must succeed."""
    children = []
    for n in range(count):
        child = os.fork()
        if not child:
            status = 1
            try:
                work(n)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def go(node: Node, verb: str, container_id: str, **conf: Any) -> dict[str, Any]:
    """Run Go's plugin; returns its result or its error object."""
    ipam = {"type": "host-local", "dataDir": str(node.data_dir), **node.ipam}
    conf = {"cniVersion": "1.0.0", "name": "net", "ipam": ipam, **conf}
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": "/dev/null",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/",
    }
    done = subprocess.run(
        [GO], input=json.dumps(conf).encode(), env=env, capture_output=True, check=False
    )
    found = json.loads(done.stdout or b"{}")
    assert isinstance(found, dict)
    assert ("code" in found) == (done.returncode != 0)
    return found


def add_or_lose(node: Node, name: str) -> list[str]:
    """ADD; nothing when the pool is full."""
    try:
        return node.add(name)
    except CNIError as error:
        if error.code != POOL_EXHAUSTED:
            raise
        return []


def test_each_process_gets_its_own(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=RANGES)

    def add(n: int) -> None:
        for m in (0, 1):
            node.add(f"c{n}-{m}")

    def delete(n: int) -> None:
        for m in (0, 1):
            node.delete(f"c{n}-{m}")

    in_children(24, add)
    files = node.files()
    assert len(files) == 96
    names = [f"c{n}-{m}\r\neth0" for n in range(24) for m in (0, 1)]
    assert sorted(files.values()) == sorted(2 * names)
    in_children(24, delete)
    assert node.files() == node.entries() == {}


def test_the_last_address_goes_to_one(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.5.0.0/29"}]])

    def race(n: int) -> None:
        if not add_or_lose(node, f"c{n}"):
            (tmp_path / f"lost{n}").touch()

    in_children(16, race)
    assert len(node.files()) == 5
    assert len(set(node.files().values())) == 5
    assert len(list(tmp_path.glob("lost*"))) == 11


def test_coming_and_going(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=RANGES)

    def live(n: int) -> None:
        dice = random.Random(n)
        held: dict[str, list[str]] = {}
        for step in range(40):
            if held and dice.random() < 0.45:
                name, addresses = held.popitem()
                for address in addresses:
                    assert (node.leases / address).read_bytes() == f"{name}\r\neth0".encode()
                node.delete(name)
            else:
                name = f"c{n}-{step}"
                held[name] = add_or_lose(node, name)
        for name in held:
            node.delete(name)

    in_children(8, live)
    assert node.files() == node.entries() == {}


# ------------------------------------------------------------------ Go's plugin on the same folder

needs_go = pytest.mark.skipif(
    not GO.exists(), reason="needs the package containernetworking-plugins"
)


@needs_go
def test_together_with_go(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=RANGES)

    def live(n: int) -> None:
        for step in range(6):
            name = f"c{n}-{step}"
            if n % 2:
                assert "ips" in go(node, "ADD", name)
                node.delete(name)
            else:
                node.add(name)
                assert go(node, "DEL", name) == {}

    in_children(6, live)
    assert node.files() == {}
    node.delete("x")
    node.add("x")
    assert list(node.entries()) == ["x:eth0"]


@needs_go
def test_go_and_we_take_turns(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=RANGES)
    seen = []
    for n in range(6):
        result = go(node, "ADD", f"c{n}") if n % 2 else node.result(f"c{n}")
        seen.append(result["ips"][0]["address"])
        assert result["ips"][0]["gateway"] == "10.5.0.1"
    assert seen == [f"10.5.0.{n}/26" for n in range(2, 8)]
    node.check("c1")
    assert go(node, "CHECK", "c0", prevResult={"cniVersion": "1.0.0"}) == {}
    for n in range(6):
        if n % 2:
            node.delete(f"c{n}")
        else:
            assert go(node, "DEL", f"c{n}") == {}
    assert node.files() == {}


@needs_go
def test_go_reads_our_leases_as_its_own(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=RANGES)
    node.add("q")
    duplicate = go(node, "ADD", "q")
    with pytest.raises(CNIError) as caught:
        node.add("q")
    assert duplicate["msg"] == caught.value.msg
    assert "duplicate allocation is not allowed" in duplicate["msg"]


@needs_go
@pytest.mark.parametrize(
    "ipam",
    [
        {"ranges": [[{"subnet": "10.5.0.9/24"}]]},
        {"ranges": [[{"subnet": "10.5.0.0/24", "rangeStart": "10.6.0.1"}]]},
        {"ranges": [[{"subnet": "10.5.0.0/24", "rangeEnd": "10.6.0.1"}]]},
        {"ranges": [[]]},
        {"ranges": []},
        {"ranges": [[{"subnet": "10.5.0.0/24"}], [{"subnet": "10.5.0.0/16"}]]},
        {"ranges": [[{"subnet": "10.5.0.0/24"}, {"subnet": "fd00::/64"}]]},
        {"ranges": [[{"subnet": "10.5.0.0/24"}, {"subnet": "10.5.0.0/16"}]]},
        {"subnet": "10.5.0.0/24", "ranges": [[{"subnet": "10.5.0.0/24"}]]},
    ],
    ids=str,
)
def test_the_same_words_as_go(tmp_path: Path, ipam: dict[str, Any]) -> None:
    node = Node(tmp_path, **ipam)
    with pytest.raises(CNIError) as caught:
        node.add()
    assert caught.value.msg == go(node, "ADD", "c1")["msg"]


@needs_go
def test_what_is_refused_in_gos_words(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.5.0.0/30"}]])
    node.add()
    for wishes in ([], ["10.5.0.2"], ["10.5.0.1"], ["10.9.0.1"]):
        wanted = {"cni": {"ips": wishes}}
        with pytest.raises(CNIError) as caught:
            node.add("c2", args=wanted)
        assert caught.value.msg == go(node, "ADD", "c2", args=wanted)["msg"]
        assert list(node.files()) == ["10.5.0.2"]

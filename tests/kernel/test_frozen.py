"""The frozen plugins at work: what one call opens, hands on, and leaves when it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import Node

pytestmark = [pytest.mark.frozen, pytest.mark.timeout(600)]

CONF = {"cniVersion": "1.0.0", "name": "net", "type": "flannel"}
CALL: dict[str, Any] = {"container_id": "c1", "ifname": "eth0", "netns": "/run/netns/pod"}

# What the per-pod path may open in the build's folder: the interpreter, and nothing rare.
PER_POD = {"encodings/__init__.pyc", "modules", "boot", "needs", "python", "ld.so"}
BINARIES = ("libpython", "libz.", "libexpat.", "libffi.", "libc.", "libm.", "_json.", "_ctypes.")


@pytest.fixture
def frozen(plugins: Path) -> Path:
    """The build's folder of the plugins under test."""
    current = (plugins / "flannel").resolve().parent / ".cni-flannel" / "current"
    if not current.exists():
        pytest.skip("the plugins under test are not frozen")
    return current.resolve()


@pytest.fixture
def pod(node: Node) -> str:
    node.write_subnet_env()
    return node.add_pod("pod")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_call_opens_nothing_rare(node: Node, pod: str, frozen: Path, command: str) -> None:
    if command == "DEL":
        assert node.cni("ADD", CONF, **CALL).result
    trace = ["strace", "-f", "-z", "-e", "trace=open,openat", "-o", "/run/trace"]
    environ = node.environment(command, "c1", "eth0", pod)
    node.run([*trace, node.program("flannel")], json.dumps(CONF), environ)
    opened = {
        line.split('"')[1].removeprefix(f"{frozen}/")
        for line in node.path("/run/trace").read_text().splitlines()
        if f'"{frozen}/' in line
    }
    files = {name for name in opened if (frozen / name).is_file()}
    rare = {name for name in files - PER_POD if not name.rsplit("/")[-1].startswith(BINARIES)}
    assert rare == set()
    assert "modules" in files


@pytest.mark.parametrize("command", ["ADD", "STATUS"])
def test_no_process_is_started_for_the_common_pod(
    node: Node, pod: str, frozen: Path, command: str
) -> None:
    """The second execve is the launcher's, which becomes the loader of the folder."""
    assert frozen.exists()
    trace = ["strace", "-f", "-z", "-e", "trace=execve", "-o", "/run/trace"]
    environ = node.environment(command, "c1", "eth0", pod)
    conf = {**CONF, "cniVersion": "1.1.0"}
    node.run([*trace, node.program("flannel")], json.dumps(conf), environ)
    text = node.path("/run/trace").read_text()
    assert text.count("execve(") == 2
    assert text.count("flannel") >= 2


LOADERS: dict[str, dict[str, str | None]] = {
    "none": {},
    "path": {"LD_LIBRARY_PATH": "/somewhere/lib"},
    "empty part": {"LD_LIBRARY_PATH": ":/somewhere", "LD_BIND_NOW": "1"},
    "preload": {"LD_PRELOAD": "/nonexistent.so", "GLIBC_TUNABLES": "glibc.malloc.arena_max=1"},
}


@pytest.mark.parametrize("variables", LOADERS.values(), ids=LOADERS)
def test_delegate_gets_the_environment_of_the_caller(
    node: Node, pod: str, frozen: Path, variables: dict[str, str | None]
) -> None:
    """Nothing is added, and what the loader of the plugin itself must not see comes back."""
    assert frozen.exists()
    answer = '{"cniVersion":"1.0.0","interfaces":[],"ips":[],"dns":{}}'
    script = f"#!/bin/sh\nenv >/run/environment\necho '{answer}'\n"
    node.path(node.write("/run/bin/foreign", script)).chmod(0o755)
    environ = {"CNI_PATH": "/run/bin", **variables}
    conf = {**CONF, "delegate": {"type": "foreign"}}
    assert node.cni("ADD", conf, **CALL, env=environ).result
    lines = node.path("/run/environment").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    assert pod == seen["CNI_NETNS"]
    assert seen.keys() - node.environment("ADD", "c1", "eth0", pod) - {"PWD", "_"} == set(variables)
    assert variables.items() <= seen.items()


def test_killed_calls_leave_no_file_behind(node: Node, pod: str, tmp_path: Path) -> None:
    """SIGKILL at twenty moments of an ADD; the DEL, which the runtime sends next, cleans all up."""
    environ = {**node.environment("ADD", "c1", "eth0", pod), "TMPDIR": str(tmp_path)}
    stdin = json.dumps(CONF).encode()
    start = time.monotonic()
    assert node.cni("ADD", CONF, **CALL).result
    whole = time.monotonic() - start
    assert node.cni("DEL", CONF, **CALL).status == 0
    for _ in range(20):
        conf = os.memfd_create("stdin")
        os.write(conf, stdin)
        os.lseek(conf, 0, os.SEEK_SET)
        with node.popen([node.program("flannel")], stdin=conf, stdout=conf, env=environ) as call:
            time.sleep(random.uniform(0, whole))
            call.send_signal(signal.SIGKILL)
        os.close(conf)
        assert node.cni("DEL", CONF, **CALL).status == 0
    left = [name.rsplit("/")[-1] for name in node.files("/var/lib/cni")]
    assert sorted(left) == ["last_reserved_ip.0", "lock"]
    assert [name for name in node.links() if name.startswith("veth")] == []
    assert list(tmp_path.iterdir()) == []

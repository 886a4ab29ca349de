"""Two machines without a server, as docs/flanneld.md has it: its own lines, on two nodes."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import ROOT, UNDERLAY, Scene, eventually, program
from tests.kernel.privatens import needs_root, private

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flanneld.scene import Node

pytestmark = [needs_root, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs" / "flanneld.md").read_text().partition("### Without a server")[2]
LINES, FILE = re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL)[:2]
FIRST, SECOND = LINES.partition("# on each, when the other's daemon has started")[::2]


def start(node: Node, other: Node, lines: str) -> subprocess.Popen[bytes]:
    """Start lines of the page on a node: in its folders, and with the other's for scp."""
    if node.number == 2:
        lines = lines.replace("10.244.1.0/24", "10.244.2.0/24")
    lines = lines.replace("192.0.2.2", other.address)
    for path in ("/etc/flannel", "/var/lib/flannel"):
        lines = lines.replace(f" {path}", f" {node.folder}{path}")
    script = f"""
        scp() {{ cp "{other.folder}${{1#*:}}" "$2"; }}
        flanneld() {{ setpriv --pdeathsig KILL {" ".join(program())} "$@" 2>>{node.folder}/log; }}
        {lines}
        wait
    """
    environ = {
        "FLANNELD_DATA_DIR": f"{node.folder}/var/lib/flannel",
        "FLANNELD_SUBNET_FILE": str(node.subnet_file),
        "FLANNELD_HEALTHZ_PORT": "8081",
    }
    enter = ("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", node.name)
    command = (*enter, "bash", "-ec", script)
    return subprocess.Popen(command, env={**os.environ, **environ}, cwd=ROOT)


@private
def test_two_machines(tmp_path: Path) -> None:
    one, two = Scene(tmp_path).nodes
    for node, other in ((one, two), (two, one)):
        start(node, other, FIRST)
        leases = node.folder / "var/lib/flannel/local/leases.json"
        eventually("it has its lease", leases.exists)
    for node, other in ((one, two), (two, one)):
        assert start(node, other, f"#{SECOND}").wait(60) == 0
    for node, other in ((one, two), (two, one)):
        eventually("it is ready", lambda: node.get("readyz").startswith("flanneld is ready"))  # noqa: B023
        eventually("it reaches the other", lambda: node.reaches(f"10.244.{other.number}.0"))  # noqa: B023
        assert node.env["FLANNEL_SUBNET"] == f"10.244.{node.number}.1/24"


@private
def test_one_file_for_all(tmp_path: Path) -> None:
    nodes = Scene(tmp_path).nodes
    peers = tmp_path / "peers.json"
    peers.write_text(FILE.replace("192.0.2", UNDERLAY))
    for node in nodes:
        node.start(
            *("--subnet-mgr", "local", "--network", "10.244.0.0/16", "--backend", "host-gw"),
            *("--peers", str(peers)),
        )
    for node, other in (nodes, nodes[::-1]):
        node.ready()
        assert node.env["FLANNEL_SUBNET"] == f"10.244.{node.number}.1/24"
        wanted = {f"10.244.{other.number}.0/24": other.address}
        eventually("its route", lambda: wanted.items() <= node.routes("eth0").items())  # noqa: B023


@private
def test_a_subnet_that_a_peer_has(tmp_path: Path) -> None:
    """The daemon waits, says who has it, and goes on when the file is right."""
    (one,) = Scene(tmp_path, 1).nodes
    peers = tmp_path / "peers.json"
    peers.write_text('{"10.244.1.0-24": {"PublicIP": "192.168.64.2"}}')
    flags = ("--subnet-mgr", "local", "--network", "10.244.0.0/16", "--backend", "host-gw")
    one.start(*flags, "--subnet", "10.244.1.0/24", "--peers", str(peers))
    told = "gives 10.244.1.0-24 to 192.168.64.2: give one of the two another --subnet"
    eventually("it says so", lambda: told in one.get("readyz"))
    peers.write_text('{"10.244.2.0-24": {"PublicIP": "192.168.64.2"}}')
    one.ready()
    # The other comes with this node's subnet later on: it is named, and this node keeps it.
    peers.write_text('{"10.244.1.0-24": {"PublicIP": "192.168.64.2"}}')
    eventually("it is named", lambda: "give one of the two another --subnet" in one.get("readyz"))
    assert one.env["FLANNEL_SUBNET"] == "10.244.1.1/24"


@pytest.mark.parametrize(
    "subnet", ["10.9.1.0/24", "10.244.1.0/25", "10.244.0.0/24", "x", "fd00::/64", "10.244.1.0/24,"]
)
def test_a_subnet_that_cannot_be(tmp_path: Path, subnet: str) -> None:
    flags = ("--subnet-mgr=local", "--network=10.244.0.0/16", f"--subnet={subnet}")
    done = subprocess.run(
        [*program(), *flags, f"--subnet-file={tmp_path}/subnet.env", f"--data-dir={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 2
    assert f'invalid value "{subnet}" for flag -subnet: ' in done.stderr

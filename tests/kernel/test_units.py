"""The systemd units: how much they expose, and that their filters let through what the programs do.

No systemd runs here. What the programs call is traced, and compared with what the unit allows.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import CONF, call, conf_with
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from tests.kernel.resident import Resident

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging" / "systemd"
SERVICES = sorted(unit.name for unit in UNITS.glob("*.service"))
LARGEST_EXPOSURE = 4.0
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-o")
_CALL = re.compile(r"^\d+ +([a-z_0-9]+)\(", re.MULTILINE)


@pytest.fixture(autouse=True)
def _systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")


@pytest.mark.parametrize("name", SERVICES)
def test_it_exposes_little(name: str, tmp_path: Path) -> None:
    unit = (UNITS / name).read_text()
    unit = re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", unit, flags=re.MULTILINE)
    (tmp_path / name).write_text(unit)
    (tmp_path / "cni-flannel.socket").write_text((UNITS / "cni-flannel.socket").read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"./{name}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= LARGEST_EXPOSURE, done.stdout


@cache
def members(group: str) -> frozenset[str]:
    """System calls of a group, as this machine's systemd has it."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", group],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = [line.strip() for line in listed.splitlines()[1:]]
    names = {word for word in words if word and not word.startswith(("#", "@"))}
    inner = (members(word) for word in words if word.startswith("@"))
    return frozenset(names.union(*inner))


def allowed(name: str) -> frozenset[str]:
    """What a unit's filter lets through."""
    groups = re.findall(r"^SystemCallFilter=(.*)$", (UNITS / name).read_text(), re.MULTILINE)
    return frozenset().union(*(members(group) for line in groups for group in line.split()))


def traced(text: str) -> set[str]:
    return set(_CALL.findall(text))


CONFS = {
    "plain": CONF,
    "iptables": conf_with(delegate={"ipMasq": True, "ipMasqBackend": "iptables"}),
    "nftables": conf_with(
        delegate={"ipMasq": True, "ipMasqBackend": "nftables", "macspoofchk": True}
    ),
}


def test_the_resident_process_calls_nothing_that_is_refused(resident: Resident) -> None:
    node = resident.node
    program = [*STRACE, "/run/trace", str(resident.folder / "flannel"), "serve"]
    with node.popen(program) as server:
        eventually(lambda: node.path("/run/cni-flannel/cni.sock").exists(), "it serves")
        for name, conf in CONFS.items():
            added = resident.call("ADD", conf=conf)
            assert added.result["ips"], name
            checked = {**conf, "prevResult": added.result}
            for verb in ("CHECK", "STATUS", "DEL"):
                assert resident.call(verb, conf=checked).status == 0, (name, verb)
        gc = {**CONF, "cni.dev/valid-attachments": []}
        assert resident.call("GC", conf=gc).status == 0
        assert call(node, "ADD", "a", plugin=resident.launcher).status == 0
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        server.wait(60)
    used = traced(node.path("/run/trace").read_text())
    assert {"setns", "sendmsg", "execve", "memfd_create"} <= used
    assert used - allowed("cni-flannel.service") == set()


DAEMON = """
ip link add uplink type bridge && ip address add 192.0.2.1/24 dev uplink && ip link set uplink up
rm -f /run/flannel/subnet.env
{strace} /run/trace flanneld --subnet-mgr local --network 10.244.0.0/16 --iface uplink --ip-masq \
    --backend {backend} 2>/run/log &
tracer=$!
for i in $(seq 1000); do [ -e /run/flannel/subnet.env ] && break; sleep 0.1; done
sleep 2
kill -TERM $(cat /proc/$tracer/task/$tracer/children)
wait
cat /run/log >&2
cat /run/trace
"""


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "udp"])
def test_the_daemon_calls_nothing_that_is_refused(backend: str) -> None:
    script = DAEMON.format(strace=" ".join(STRACE), backend=backend)
    done = subprocess.run(
        [ROOT / "packaging" / "sandbox.sh", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    used = traced(done.stdout)
    assert {"bind", "sendto", "execve"} <= used, done.stderr
    assert used - allowed("flanneld.service") == set()

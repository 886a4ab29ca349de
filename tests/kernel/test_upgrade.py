"""Pods come and go while the pair is installed anew, from build to build and from mode to mode.

`CALLS=2000 ./build.sh test tests/kernel/test_upgrade.py` is the full form.
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.budget.installing import PROGRAM, builds, other_build
from tests.kernel.activation import Systemd
from tests.kernel.attachments import CONF, leases
from tests.kernel.privatens import needs_root

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.conftest import Node

pytestmark = [needs_root, pytest.mark.frozen, pytest.mark.timeout(900)]

CALLS = int(os.environ.get("CALLS", "300"))
FOLDER = "/run/opt/bin"
PODS = ("a", "b", "c", "d")


class Lives:
    """Attachments that are made, looked at and removed, by a thread for each pod."""

    def __init__(self, node: Node) -> None:
        self.made = 0
        self.lost: list[str] = []
        self._node = node
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=[pod]) for pod in PODS]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _live(self, pod: str) -> None:
        number = 0
        while not self._done.is_set() and not self.lost:
            number += 1
            added = self._call("ADD", pod, number, CONF)
            if added:
                conf = {**CONF, "prevResult": json.loads(added)}
                self._call("CHECK", pod, number, conf)
                self._call("DEL", pod, number, conf)

    def _call(self, verb: str, pod: str, number: int, conf: dict[str, object]) -> str:
        environ = self._node.environment(verb, f"{pod}{number}", "eth0", f"/run/netns/{pod}")
        done = self._node.run([f"{FOLDER}/flannel"], json.dumps(conf), environ, check=False)
        self.made += 1
        if done.status != 0:
            self.lost.append(f"{verb} {pod}{number}: {done}")
        return done.stdout


def install(node: Node, source: Path, *words: str) -> None:
    environ = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    node.run([str(PROGRAM), "install", *words, "--from", str(source), FOLDER], env=environ)


def test_no_call_is_lost(node: Node, plugins: Path, tmp_path: Path) -> None:
    """Build by build, between a process for each call and a resident one."""
    built = (plugins / "flannel").resolve().parent
    if not (built / ".cni-flannel").exists() or not PROGRAM.exists():
        pytest.skip("the plugins under test are not frozen")
    both = (built, other_build(tmp_path / "other"))
    node.write_subnet_env()
    for pod in PODS:
        node.add_pod(pod)
    with Systemd(node, f"{FOLDER}/flannel") as systemd:
        install(node, built)
        lives = Lives(node)
        upgrades = 0
        try:
            while lives.made < CALLS and not lives.lost:
                upgrades += 1
                install(node, both[upgrades % 2], *(["--resident"] if upgrades % 3 else []))
        finally:
            lives.end()
        assert lives.lost == []
        assert upgrades > 2
        served = systemd.served()
        print(f"{lives.made} calls over {upgrades} installations, {served} by resident processes")
        assert 0 < served < lives.made
        install(node, built)
    assert builds(node.path(FOLDER)) == builds(built)
    assert leases(node) == {}
    assert [name for name in node.links() if name.startswith("veth")] == []

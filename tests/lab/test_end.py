"""Nothing outlives a lab, even one that is killed in the middle of its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.cluster import configuration
from tests.lab.space import ROOT, members, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.cluster import Cluster

# Prints the inode of its PID namespace, the one of its first node's network, and etcd's id.
_LAB = """
import os, signal
from tests.lab.cluster import Cluster, configuration
cluster = Cluster(configuration("vxlan")).start(2)
for name in ("pid", "net"):
    print(os.readlink(f"/proc/{cluster.nodes[0].pid}/ns/{name}"))
print(cluster.etcd.process.pid, flush=True)
signal.pause()
"""


def test_nothing_outlives_a_lab_that_is_killed(new_cluster: Callable[..., Cluster]) -> None:
    assert new_cluster is not None, "what a lab needs is there"
    with subprocess.Popen(
        [sys.executable, "-c", _LAB], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout is not None
        processes, network, etcd = (lab.stdout.readline().strip() for _ in range(3))
        assert len(members(processes)) >= 5, "the underlay, two nodes, two daemons"
        assert members(network)
        lab.send_signal(signal.SIGKILL)
    until("the lab's processes are gone", lambda: not members(processes))
    until("the node's network has no process", lambda: not members(network))
    until("etcd is gone", lambda: not Path(f"/proc/{etcd}").exists())


def test_closing_a_lab_ends_all_of_it(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(configuration("host-gw")).start(1)
    processes = os.readlink(f"/proc/{cluster.nodes[0].pid}/ns/pid")
    assert members(processes)
    cluster.close()
    assert members(processes) == []

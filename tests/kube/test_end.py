"""Nothing outlives a cluster, even one that is killed while pods run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.lab.space import ROOT, members, until

# Prints the PID namespaces of the cluster, of its node and of a pod; the process numbers of the
# keeper and of etcd; the folders of its cgroups.
_CLUSTER = """
import os, signal
from tests.kube.cluster import Cluster
from tests.kube.pods import web
cluster = Cluster().start(1)
cluster.kubectl.apply(web("one", "node1"))
pod = cluster.pod("one")
node = pod.node
inside = pod.inside.removesuffix("/ns/net")
print(*(os.readlink(f"/proc/{space.pid}/ns/pid") for space in (cluster.underlay, node)), end=" ")
print(os.readlink(node.path(f"{inside}/ns/pid")))
print(cluster.underlay.keeper, cluster.control.etcd.process.pid)
print(*cluster.underlay.cgroup.folders, flush=True)
signal.pause()
"""


def test_nothing_outlives_a_cluster_that_is_killed(programs: Path) -> None:
    assert programs.is_dir()
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        namespaces, processes, cgroups = (cluster.stdout.readline().split() for _ in range(3))
        assert all(members(namespace) for namespace in namespaces)
        assert all(Path(f"/proc/{pid}").exists() for pid in processes)
        assert all(Path(folder).exists() for folder in cgroups)
        cluster.send_signal(signal.SIGKILL)
    until("no process is left", lambda: not any(map(members, namespaces)))
    paths = [Path(f"/proc/{pid}") for pid in processes] + [Path(folder) for folder in cgroups]
    until("the keeper, etcd and all cgroups are gone", lambda: not any(map(Path.exists, paths)))
    assert "node1" not in Path("/proc/self/mountinfo").read_text()

"""Clusters for the lab's tests. What a lab needs and is missing skips the test; in CI it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.world import SYSTEM_PATH
from tests.lab.cluster import Cluster
from tests.lab.node import PLUGINS, program
from tests.lab.space import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEEDED = ("etcd", "etcdctl", "ethtool", "ip", "iptables", "nft", "nsenter", "ping", "setpriv")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            item.add_marker(pytest.mark.frozen)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def new_cluster() -> Iterator[Callable[[dict[str, Any]], Cluster]]:
    """Make clusters of a configuration; nodes are added by the test."""
    missing = [name for name in NEEDED if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, and: {', '.join(missing)}")
    if not (PLUGINS / "flannel").exists():
        pytest.skip(f"{PLUGINS}/flannel is not built: run ./build.sh")
    try:
        program()
    except LabError as error:
        pytest.skip(str(error))
    clusters: list[Cluster] = []

    def make(conf: dict[str, Any]) -> Cluster:
        clusters.append(Cluster(conf))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()
